// Package cut finds the places at which a large file is cut into chunks. They
// depend on the contents around them alone, so that an edit moves only the cuts
// near it and the other chunks are found again.
//
// The rolling hash is a "gear" hash, as in W. Xia and others, "FastCDC: a Fast and
// Efficient Content-Defined Chunking Approach" (USENIX ATC 2016). Their second
// mask, which pulls sizes towards the middle, is left out: with it, the cuts after an
// edit fall back into step three times later.
package cut

// Bounds of a chunk's size in bytes. Only the last chunk of a file is shorter.
const (
	Min = 256 << 10
	Max = 2 << 20
)

// mask makes a cut where 19 bits of the hash are zero: on average 512 KiB after
// Min. They are the upper ones, which depend on the last 64 bytes.
const mask = (1<<19 - 1) << (64 - 19)

// gear is a random number for each byte: the first 256 outputs of splitmix64 from
// the state 0. They are part of the format only in so far as other numbers would
// find fewer chunks again.
var gear = func() (table [256]uint64) {
	var state uint64
	for i := range table {
		state += 0x9e3779b97f4a7c15
		z := state
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		table[i] = z ^ z>>31
	}
	return table
}()

// Next gives the length of the first chunk of p, which holds what is left of a
// file, or Max bytes of it.
func Next(p []byte) int {
	if len(p) <= Min {
		return len(p)
	}
	p = p[:min(len(p), Max)]
	var h uint64
	for _, c := range p[Min-64 : Min] {
		h = h<<1 + gear[c]
	}
	for i, c := range p[Min:] {
		h = h<<1 + gear[c]
		if h&mask == 0 {
			return Min + i + 1
		}
	}
	return len(p)
}
