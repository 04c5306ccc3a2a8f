package modalemu

import (
	"crypto/rand"
	"math/big"
)

// alphabet is that of Modal's ids.
const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// The lengths of what follows the prefix of an id. The client takes a sandbox's
// id of 22 characters for one of the older interface, and any other for one of
// the newer.
const (
	idLength          = 22
	sandboxV2IDLength = 26
)

// newID makes an id such as "im-4dXG…".
func newID(prefix string) string { return prefix + "-" + randomString(idLength) }

func randomString(n int) string {
	limit := big.NewInt(int64(len(alphabet)))
	b := make([]byte, n)
	for i := range b {
		k, err := rand.Int(rand.Reader, limit)
		if err != nil {
			panic(err) // crypto/rand does not fail on any system this runs on
		}
		b[i] = alphabet[k.Int64()]
	}
	return string(b)
}
