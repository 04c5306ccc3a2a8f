package storagetest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

func ExampleFaulty() {
	bucket := &storagetest.Faulty{
		Bucket: new(storagetest.Memory),
		Plan:   storagetest.Nth(2, storagetest.LoseAnswer),
	}
	for _, key := range []string{"one", "two", "three"} {
		err := bucket.Put(context.Background(), key, strings.NewReader("x"), nil)
		fmt.Println(key, errors.Is(err, storagetest.ErrInjected))
	}
	_, err := bucket.Stat(context.Background(), "two")
	fmt.Println("two was stored:", err == nil)
	// Output:
	// one false
	// two true
	// three false
	// two was stored: true
}

func ExampleExercise() {
	// In a test file of one's own bucket:
	_ = func(t *testing.T) {
		storagetest.Exercise(t, func(*testing.T) storage.Bucket { return new(storagetest.Memory) })
	}
}
