//go:build linux

// Package inotify makes changes of files out of what inotify(7) tells. It opens
// and reads nothing itself.
package inotify

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// headSize is the size of struct inotify_event without its name.
const headSize = 16

// Event is one struct inotify_event.
type Event struct {
	WD           int32
	Mask, Cookie uint32
	Name         string // empty when it is about what is watched itself
}

// Parse takes apart what one read of an inotify descriptor gave: whole events,
// as the kernel never cuts one. What it cannot make sense of is an error; the
// events before it are returned.
func Parse(buf []byte) (events []Event, err error) {
	for len(buf) > 0 {
		if len(buf) < headSize {
			return events, fmt.Errorf("inotify event of %d bytes is cut short", len(buf))
		}
		ev := Event{
			WD:     int32(binary.NativeEndian.Uint32(buf)),
			Mask:   binary.NativeEndian.Uint32(buf[4:]),
			Cookie: binary.NativeEndian.Uint32(buf[8:]),
		}
		size := binary.NativeEndian.Uint32(buf[12:])
		buf = buf[headSize:]
		if uint64(size) > uint64(len(buf)) {
			return events, fmt.Errorf("inotify event's name of %d bytes is cut short", size)
		}
		ev.Name, _, _ = strings.Cut(string(buf[:size]), "\x00")
		buf = buf[size:]
		events = append(events, ev)
	}
	return events, nil
}
