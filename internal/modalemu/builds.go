package modalemu

// builds are the images that are being built.
type builds struct{}

func newBuilds() *builds { return &builds{} }
