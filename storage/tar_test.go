package storage_test

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
)

// tarSums gives the SHA-256 of each file in an archive, as archive/tar reads it.
func tarSums(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	sums := map[string]string{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return sums
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse {
			continue
		}
		hash := sha256.New()
		if _, err := io.Copy(hash, tr); err != nil {
			t.Fatal(err)
		}
		sums[strings.TrimPrefix(h.Name, "./")] = hex.EncodeToString(hash.Sum(nil))
	}
}
