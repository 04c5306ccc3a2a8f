package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vivarium-go/vivarium/storage"
)

// Exercise runs the suite that every storage.Bucket passes, one subtest for each
// promise of the interface. open gives an empty bucket, whose clean-up it leaves
// to t.Cleanup; it is called once for each subtest. A bucket that sends large
// objects in parts should be opened with parts of 5 MiB, to have them tried.
func Exercise(t *testing.T, open func(t *testing.T) storage.Bucket) {
	promises := []struct {
		name string
		test func(*testing.T, storage.Bucket)
	}{
		{"GetReturnsWhatWasPut", getReturnsWhatWasPut},
		{"GetOfAbsentIsNotExist", getOfAbsent},
		{"GetRange", getRange},
		{"GetEndsWithItsContext", getEndsWithContext},
		{"PutReplaces", putReplaces},
		{"PutIfAbsentIsExist", putIfAbsent},
		{"PutIfAbsentHasOneWinner", putRace},
		{"PutOfBrokenStreamStoresNothing", putBroken},
		{"PutOfCancelledContextStoresNothing", putCancelled},
		{"PutStreamsLargeObjects", putLarge},
		{"PutOfKnownDigestStores", putDigest},
		{"PutOfAnotherDigestStoresNothing", putOtherDigest},
		{"PutOfAnotherSizeStoresNothing", putOtherSize},
		{"PutOfBytesReaderIsWhole", putBytesReader},
		{"PresignedRequestsDoWhatTheySay", presignedRequests},
		{"StatDescribes", statDescribes},
		{"StatOfAbsentIsNotExist", statOfAbsent},
		{"ListIsSortedByBytes", listSorted},
		{"ListTakesAnyPrefix", listPrefix},
		{"ListIsComplete", listComplete},
		{"ListCanBeLeft", listLeft},
		{"ListReportsCancelledContext", listCancelled},
		{"DeleteRemoves", deleteRemoves},
		{"DeleteOfAbsentIsNoError", deleteAbsent},
		{"OddKeysStayApart", oddKeys},
		{"BadKeysAreInvalid", badKeys},
	}
	for _, p := range promises {
		t.Run(p.name, func(t *testing.T) { p.test(t, open(t)) })
	}
}

func put(t *testing.T, b storage.Bucket, key, data string) {
	t.Helper()
	if err := b.Put(t.Context(), key, strings.NewReader(data), nil); err != nil {
		t.Fatalf("Put %q: %v", key, err)
	}
}

func read(ctx context.Context, b storage.Bucket, key string, offset, length int64) (string, error) {
	r, err := b.Get(ctx, key, offset, length)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(r)
	return string(data), errors.Join(err, r.Close())
}

func want(t *testing.T, b storage.Bucket, key, data string) {
	t.Helper()
	r, err := b.Get(t.Context(), key, 0, -1)
	got := bytes.NewBuffer(make([]byte, 0, len(data)+bytes.MinRead)) // large ones are many
	if err == nil {
		_, err = got.ReadFrom(r)
		err = errors.Join(err, r.Close())
	}
	if err != nil || got.String() != data {
		t.Fatalf("Get %q: %d bytes %.40q, %v; want %d bytes %.40q", key, got.Len(), got, err, len(data), data)
	}
}

func wantIs(t *testing.T, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("%s: %v; want an error that matches %v", what, err, target)
	}
}

func keys(t *testing.T, b storage.Bucket, prefix string) (all []string) {
	t.Helper()
	for object, err := range b.List(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("List %q: %v", prefix, err)
		}
		all = append(all, object.Key)
	}
	return all
}

func getReturnsWhatWasPut(t *testing.T, b storage.Bucket) {
	for _, data := range []string{"", "x", strings.Repeat("vivarium", 1<<14), "\x00\xff\r\n"} {
		put(t, b, "some/object", data)
		want(t, b, "some/object", data)
	}
}

func getOfAbsent(t *testing.T, b storage.Bucket) {
	put(t, b, "dir/object", "x")
	for _, key := range []string{"absent", "dir", "dir/objec", "dir/absent", "elsewhere/object"} {
		_, err := read(t.Context(), b, key, 0, -1)
		wantIs(t, "Get "+key, err, fs.ErrNotExist)
	}
	_, err := read(t.Context(), b, "absent", 0, 0)
	wantIs(t, "Get of no bytes", err, fs.ErrNotExist)
}

func getRange(t *testing.T, b storage.Bucket) {
	put(t, b, "digits", "0123456789")
	put(t, b, "empty", "")
	for _, c := range []struct {
		key            string
		offset, length int64
		want           string
	}{
		{"digits", 0, -1, "0123456789"},
		{"digits", 3, -1, "3456789"},
		{"digits", 3, 4, "3456"},
		{"digits", 9, 1, "9"},
		{"digits", 8, 100, "89"},
		{"digits", 2, 0, ""},
		{"digits", 10, -1, ""},
		{"digits", 10, 5, ""},
		{"digits", 100, -1, ""},
		{"digits", 0, 1 << 62, "0123456789"},
		{"digits", 5, 1<<63 - 1, "56789"},
		{"empty", 0, -1, ""},
		{"empty", 0, 7, ""},
	} {
		got, err := read(t.Context(), b, c.key, c.offset, c.length)
		if err != nil || got != c.want {
			t.Errorf("Get %s from %d, %d bytes: %q, %v; want %q", c.key, c.offset, c.length, got, err, c.want)
		}
	}
	_, err := read(t.Context(), b, "digits", -1, -1)
	wantIs(t, "Get from -1", err, fs.ErrInvalid)
}

func getEndsWithContext(t *testing.T, b storage.Bucket) {
	put(t, b, "large", strings.Repeat("x", 16<<20))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := b.Get(ctx, "large", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, r); err == nil {
		t.Fatal("the stream went on to its end after its context was cancelled")
	}
	_, err = b.Get(ctx, "large", 0, -1)
	wantIs(t, "Get with a cancelled context", err, context.Canceled)
}

func statDescribes(t *testing.T, b storage.Bucket) {
	put(t, b, "first", "12345")
	put(t, b, "second", "")
	first, err := b.Stat(t.Context(), "first")
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.Stat(t.Context(), "second")
	if err != nil {
		t.Fatal(err)
	}
	if first.Key != "first" || first.Size != 5 || second.Key != "second" || second.Size != 0 {
		t.Errorf("Stat: %+v and %+v", first, second)
	}
	if first.Modified.IsZero() || second.Modified.Before(first.Modified) {
		t.Errorf("first modified %v, then second %v", first.Modified, second.Modified)
	}
	for object, err := range b.List(t.Context(), "first") {
		if err != nil || object.Size != 5 || object.Key != "first" || object.Modified.Unix() != first.Modified.Unix() {
			t.Errorf("List gives %+v, %v; Stat %+v", object, err, first)
		}
	}
}

func statOfAbsent(t *testing.T, b storage.Bucket) {
	put(t, b, "dir/object", "x")
	for _, key := range []string{"absent", "dir", "dir/absent"} {
		_, err := b.Stat(t.Context(), key)
		wantIs(t, "Stat "+key, err, fs.ErrNotExist)
	}
}

func listSorted(t *testing.T, b storage.Bucket) {
	// In bytes: '-' < '.' < '/' < '0' < 'A' < '_' < 'a' < 'é'.
	all := []string{"a-b", "a.b", "a/b", "a/c/d", "a0", "aA", "a_", "aa", "aé", "b/a-", "b/a/x", "b/a0", "zz/z"}
	for _, i := range []int{7, 3, 0, 12, 5, 1, 9, 11, 2, 6, 10, 4, 8} {
		put(t, b, all[i], "x")
	}
	if got := keys(t, b, ""); !slices.Equal(got, all) {
		t.Fatalf("List:\n%q; want\n%q", got, all)
	}
}

func listPrefix(t *testing.T, b storage.Bucket) {
	for _, key := range []string{"acme/one", "acme/two", "acme2/one", "acm", "other/acme/x"} {
		put(t, b, key, "x")
	}
	for prefix, want := range map[string][]string{
		"acme":      {"acme/one", "acme/two", "acme2/one"},
		"acme/":     {"acme/one", "acme/two"},
		"acme/t":    {"acme/two"},
		"acme/two":  {"acme/two"},
		"other/":    {"other/acme/x"},
		"absent":    nil,
		"absent/":   nil,
		"acme/one/": nil,
	} {
		if got := keys(t, b, prefix); !slices.Equal(got, want) {
			t.Errorf("List %q: %q; want %q", prefix, got, want)
		}
	}
}

// listComplete goes past the 1000 keys that S3 gives at a time.
func listComplete(t *testing.T, b storage.Bucket) {
	const count = 1012
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := worker; i < count; i += 8 {
				if err := b.Put(t.Context(), fmt.Sprintf("many/%04d", i), strings.NewReader("x"), nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	got := keys(t, b, "many/")
	if len(got) != count || got[0] != "many/0000" || got[count-1] != fmt.Sprintf("many/%04d", count-1) || !slices.IsSorted(got) {
		t.Fatalf("List gives %d keys; want %d in order", len(got), count)
	}
}

func listLeft(t *testing.T, b storage.Bucket) {
	for i := range 5 {
		put(t, b, fmt.Sprintf("dir%d/key", i), "x")
	}
	seen := 0
	seq := b.List(t.Context(), "")
	for range 2 { // a sequence can be ranged over again
		for _, err := range seq {
			if err != nil {
				t.Fatal(err)
			}
			if seen++; seen%2 == 0 {
				break
			}
		}
	}
	if seen != 4 {
		t.Fatalf("saw %d objects; want 4", seen)
	}
}

func listCancelled(t *testing.T, b storage.Bucket) {
	put(t, b, "key", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	calls := 0
	for _, err := range b.List(ctx, "") {
		calls++
		wantIs(t, "List", err, context.Canceled)
	}
	if calls != 1 {
		t.Fatalf("List gave %d results; want one error", calls)
	}
}

func deleteRemoves(t *testing.T, b storage.Bucket) {
	put(t, b, "dir/key", "x")
	put(t, b, "dir/other", "y")
	if err := b.Delete(t.Context(), "dir/key"); err != nil {
		t.Fatal(err)
	}
	_, err := read(t.Context(), b, "dir/key", 0, -1)
	wantIs(t, "Get", err, fs.ErrNotExist)
	if got := keys(t, b, ""); !slices.Equal(got, []string{"dir/other"}) {
		t.Fatalf("List: %q", got)
	}
}

func deleteAbsent(t *testing.T, b storage.Bucket) {
	put(t, b, "dir/key", "x")
	for _, key := range []string{"absent", "dir", "dir/absent", "no/such/place"} {
		if err := b.Delete(t.Context(), key); err != nil {
			t.Errorf("Delete %q: %v", key, err)
		}
	}
	want(t, b, "dir/key", "x")
}

func oddKeys(t *testing.T, b storage.Bucket) {
	odd := []string{
		"a b", "a+b", "a%20b", "a%2fb", "a&b=c?d#e", "~tilde", ".hidden", "..dots", "dots..", "-rf", "Case", "case", "CASE",
		"é", "e\u0301", "日本", "back\\slash", "quote\"'", "<xml>&amp;", "a:b", "a*b", "con/nul.txt", ".put/x", strings.Repeat("s", 80),
		strings.Repeat("é", 40), strings.Repeat(strings.Repeat("d", 79)+"/", 9) + "end",
	}
	for _, key := range odd {
		put(t, b, key, "data of "+key)
	}
	for _, key := range odd {
		want(t, b, key, "data of "+key)
	}
	slices.Sort(odd)
	if got := keys(t, b, ""); !slices.Equal(got, odd) {
		t.Fatalf("List:\n%q; want\n%q", got, odd)
	}
}

func badKeys(t *testing.T, b storage.Bucket) {
	bad := []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/../b", "a/./b", "nul\x00", "new\nline", "tab\t", "del\x7f",
		"\xff", strings.Repeat("s", 81), strings.Repeat("d/", 400) + "end", "\ufffe",
	}
	for _, key := range bad {
		_, err := b.Get(t.Context(), key, 0, -1)
		wantIs(t, fmt.Sprintf("Get %.50q", key), err, fs.ErrInvalid)
		_, err = b.Stat(t.Context(), key)
		wantIs(t, fmt.Sprintf("Stat %.50q", key), err, fs.ErrInvalid)
		wantIs(t, fmt.Sprintf("Put %.50q", key), b.Put(t.Context(), key, strings.NewReader("x"), nil), fs.ErrInvalid)
		wantIs(t, fmt.Sprintf("Delete %.50q", key), b.Delete(t.Context(), key), fs.ErrInvalid)
	}
	if got := keys(t, b, ""); len(got) != 0 {
		t.Fatalf("the bucket holds %q", got)
	}
}
