package fstools

import (
	"errors"
	"io/fs"
	"syscall"
)

// The kinds of failures that the client tells apart.
const (
	kindNotFound      = "NotFound"
	kindIsFile        = "IsFile"
	kindIsDirectory   = "IsDirectory"
	kindNotDirectory  = "NotDirectory"
	kindNotEmpty      = "DirectoryNotEmpty"
	kindAlreadyExists = "PathAlreadyExists"
	kindPermission    = "PermissionDenied"
	kindTooLarge      = "FileTooLarge"
	kindNotSupported  = "NotSupported"
	kindIO            = "Io"
)

// messages are the texts of the kinds; the client adds the path.
var messages = map[string]string{
	kindNotFound:      "No such file or directory",
	kindIsFile:        "Path is a file",
	kindIsDirectory:   "Path is a directory",
	kindNotDirectory:  "A component of the path is not a directory",
	kindNotEmpty:      "Directory is not empty",
	kindAlreadyExists: "Path already exists",
	kindPermission:    "Permission denied",
	kindTooLarge:      "File exceeds the read size limit of 5 GiB",
	kindNotSupported:  "Operation is not supported",
	kindIO:            "I/O error",
}

// failure is what the client reads from stderr.
type failure struct {
	Kind    string `json:"error_kind"`
	Message string `json:"message"`
	Detail  string `json:"detail,omitempty"`
}

func (f *failure) Error() string { return f.Message }

func fail(kind string) *failure { return &failure{Kind: kind, Message: messages[kind]} }

// failureOf maps what a driver says; what it has no kind for is an I/O error.
func failureOf(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	kind := kindIO
	for _, c := range []struct {
		is   error
		kind string
	}{
		// The numbers first: some of them match a sentinel as well.
		{syscall.ENOTDIR, kindNotDirectory},
		{syscall.EISDIR, kindIsDirectory},
		{syscall.ENOTEMPTY, kindNotEmpty},
		{syscall.EROFS, kindPermission},
		{fs.ErrNotExist, kindNotFound},
		{fs.ErrExist, kindAlreadyExists},
		{fs.ErrPermission, kindPermission},
		{errors.ErrUnsupported, kindNotSupported},
	} {
		if errors.Is(err, c.is) {
			kind = c.kind
			break
		}
	}
	f = fail(kind)
	f.Detail = err.Error()
	if kind == kindIO {
		f.Message += ": " + err.Error()
	}
	return f
}
