package process

import (
	"errors"
	"os"
)

// unnamed makes a file in dir that nobody can find, and which is gone with its
// last descriptor, whatever happens to this process.
func unnamed(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "spool-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
