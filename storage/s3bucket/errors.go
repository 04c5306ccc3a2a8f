package s3bucket

import (
	"errors"
	"io/fs"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/vivarium-go/vivarium/storage"
)

// statusOf gives the HTTP status of the answer in err, or 0.
func statusOf(err error) int {
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) {
		return answer.HTTPStatusCode()
	}
	return 0
}

func codeOf(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// named wraps an error with the operation and the key, and makes it match the
// sentinels of package storage, or fs.ErrPermission. A bucket that is missing is not an object that is.
func named(op, key string, err error) error {
	if err == nil {
		return nil
	}
	switch {
	case codeOf(err) == "NoSuchKey", codeOf(err) == "NotFound":
		err = &answer{fs.ErrNotExist, err}
	case codeOf(err) == "XAmzContentSHA256Mismatch", codeOf(err) == "BadDigest", codeOf(err) == "XAmzContentChecksumMismatch":
		err = &answer{storage.ErrMismatch, err}
	case statusOf(err) == 412:
		err = &answer{fs.ErrExist, err}
	case statusOf(err) == 403:
		err = &answer{fs.ErrPermission, err}
	}
	return &fs.PathError{Op: "s3bucket: " + op, Path: key, Err: err}
}

// answer is what the server said, with the sentinel it amounts to.
type answer struct{ kind, said error }

func (a *answer) Error() string { return a.kind.Error() + ": " + a.said.Error() }

func (a *answer) Unwrap() []error { return []error{a.kind, a.said} }
