// Package relay carries connections between a sandbox's loopback ports and this
// process over the standard streams of one command inside. It is for places
// that offer neither a listener nor a dialer: the command is a short script for
// whichever of node and python3 the image has.
//
// The streams carry frames in both directions: a type of one byte, a connection's
// number and a length of four bytes each, big-endian, and as many bytes. Each
// side may send Window bytes on a connection before the other has said, by a
// credit frame, that it has used them up; so a slow reader stops its writer and
// nobody else.
package relay
