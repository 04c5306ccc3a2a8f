package storagetest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	storagetest.Exercise(t, func(*testing.T) storage.Bucket { return new(storagetest.Memory) })
}

func TestFaultyWithoutFaults(t *testing.T) {
	storagetest.Exercise(t, func(*testing.T) storage.Bucket {
		return &storagetest.Faulty{Bucket: new(storagetest.Memory)}
	})
}
