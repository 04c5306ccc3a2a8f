//go:build unix && !linux

package helper

import "github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"

func newTree(boot *wire.Boot) (tree, error) { return newPlainTree(boot.Root) }
