//go:build !linux

package storage_test

import "testing"

func tick(testing.TB) {}
