package localbox

// ImageOptions are for the images that sandboxes start from. The zero value is a
// good default.
type ImageOptions struct {
	// MaxBytes bounds what the files of one image may hold together, unpacked. 0
	// means 64 GiB.
	MaxBytes int64
	// MaxFiles bounds how many files one image may have. 0 means 4 million.
	MaxFiles int64
	// DockerLogin logs in at a registry as this user's Docker does (its
	// config.json and credential helpers), where an image has no Registry. By
	// default nothing is sent that the image does not bring.
	DockerLogin bool
	// BuildMemory and BuildDisk are the limits of the sandbox in which a RUN
	// command runs. What it writes is in memory and counts towards both. 0 means
	// three quarters of this machine's memory.
	BuildMemory int64
	BuildDisk   int64
}
