//go:build unix

// Package wire is what the processes of localbox say to one another over unix
// sockets: messages in frames, with open descriptors beside them.
//
// The encoding is positional and knows no versions: both ends are the same
// binary, or at least checked to speak the same Version.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Version changes whenever a message changes; a client of another version is
// refused. Sandboxes outlive the program that made them, so a newer program
// may meet an older helper.
const Version = 3

// Message is anything that can be walked by a Codec.
type Message interface{ Walk(c *Codec) }

// Codec writes a message's fields, or reads them, in the order in which the
// message's Walk names them; one function serves both directions so that they
// cannot disagree.
type Codec struct {
	buf     []byte
	reading bool
	err     error
}

var errShort = errors.New("message is cut short")

// Marshal is the message's bytes.
func Marshal(m Message) []byte {
	c := &Codec{}
	m.Walk(c)
	return c.buf
}

// Unmarshal fills m from b. Strings are copied out of b.
func Unmarshal(b []byte, m Message) error {
	c := &Codec{buf: b, reading: true}
	m.Walk(c)
	if c.err == nil && len(c.buf) != 0 {
		c.err = fmt.Errorf("%d bytes left over", len(c.buf))
	}
	return c.err
}

func (c *Codec) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.buf = nil
}

// Uint walks an unsigned number.
func (c *Codec) Uint(v *uint64) {
	if !c.reading {
		c.buf = binary.AppendUvarint(c.buf, *v)
		return
	}
	n, size := binary.Uvarint(c.buf)
	if size <= 0 {
		c.fail(errShort)
		return
	}
	*v, c.buf = n, c.buf[size:]
}

// Int walks a signed number of any integer type.
func Int[T ~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32](c *Codec, v *T) {
	if !c.reading {
		c.buf = binary.AppendVarint(c.buf, int64(*v))
		return
	}
	n, size := binary.Varint(c.buf)
	if size <= 0 {
		c.fail(errShort)
		return
	}
	if int64(T(n)) != n {
		c.fail(fmt.Errorf("number %d out of range", n))
		return
	}
	*v, c.buf = T(n), c.buf[size:]
}

// Bool walks a truth value.
func (c *Codec) Bool(v *bool) {
	var n uint8
	if *v {
		n = 1
	}
	Int(c, &n)
	*v = n != 0
}

// String walks a string of any bytes.
func (c *Codec) String(v *string) {
	n := uint64(len(*v))
	c.Uint(&n)
	if !c.reading {
		c.buf = append(c.buf, *v...)
		return
	}
	if n > uint64(len(c.buf)) {
		c.fail(errShort)
		return
	}
	*v, c.buf = string(c.buf[:n]), c.buf[n:]
}

// Strings walks a list of strings.
func (c *Codec) Strings(v *[]string) {
	List(c, v, func(s *string) { c.String(s) })
}

// List walks a list, each element by walk.
func List[T any](c *Codec, v *[]T, walk func(*T)) {
	n := uint64(len(*v))
	c.Uint(&n)
	if c.reading {
		// Every element takes a byte at least, which bounds what a broken
		// message can make us allocate.
		if n > uint64(len(c.buf)) {
			c.fail(errShort)
			return
		}
		*v = nil
		if n > 0 {
			*v = make([]T, n)
		}
	}
	for i := range *v {
		if c.err != nil {
			return
		}
		walk(&(*v)[i])
	}
}

// StringMap walks a map; the order of its keys is not kept.
func (c *Codec) StringMap(v *map[string]string) {
	var kv []string
	for k, val := range *v {
		kv = append(kv, k, val)
	}
	c.Strings(&kv)
	if !c.reading {
		return
	}
	*v = nil
	for i := 0; i+1 < len(kv); i += 2 {
		if *v == nil {
			*v = make(map[string]string)
		}
		(*v)[kv[i]] = kv[i+1]
	}
}
