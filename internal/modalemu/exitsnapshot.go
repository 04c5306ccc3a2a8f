package modalemu

// exitSnapshot is the image of a sandbox's files at its end.
type exitSnapshot struct{}
