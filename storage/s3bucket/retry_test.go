package s3bucket_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/internal/s3test"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/s3bucket"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// TestFaultsOnTheWireAreOutlived lets each kind of request fail once, in each way,
// before and after the server acts. Put, Stat, Get, List and Delete go well all the same.
func TestFaultsOnTheWireAreOutlived(t *testing.T) { onEach(t, faultsOnTheWireAreOutlivedOn) }

func faultsOnTheWireAreOutlivedOn(t *testing.T, server *s3test.Server) {
	multipart := []storagetest.Op{storagetest.OpCreateUpload, storagetest.OpPutPart, storagetest.OpCompleteUpload}
	ops := append(multipart, storagetest.OpPut, storagetest.OpGet, storagetest.OpStat, storagetest.OpList, storagetest.OpDelete)
	faults := map[string]storagetest.Fault{
		"internal":   storagetest.Fail.With(storagetest.ErrInternal),
		"slow down":  storagetest.Fail.With(storagetest.ErrSlowDown),
		"reset":      storagetest.Fail,
		"lost 500":   storagetest.LoseAnswer.With(storagetest.ErrInternal),
		"lost reset": storagetest.LoseAnswer,
		"cut":        storagetest.Cut.After(1000),
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var wg sync.WaitGroup
			defer wg.Wait() // all at once, as most of the time is spent in pauses
			for _, op := range ops {
				proxy, url := through(t, server, storagetest.NthOf(op, 1, fault))
				prefix := strings.ReplaceAll(name+"-"+string(op)+"/", " ", "-")
				b := opened(t, server, url, &s3bucket.Options{PartSize: 5 * mib, Prefix: prefix})
				wg.Go(func() {
					if err := outlive(t.Context(), b, slices.Contains(multipart, op)); err != nil {
						t.Errorf("%s at %s: %v", name, op, err)
					}
					if proxy.Count(op) == 0 {
						t.Errorf("no %s was sent", op)
					}
				})
			}
		})
	}
}

// outlive does every kind of request, conditionally where it can. Parts are only
// tried where they matter.
func outlive(ctx context.Context, b *s3bucket.Bucket, parts bool) error {
	size := 4096
	if parts {
		size = 6 * mib
	}
	if err := outlivePut(ctx, b, "key", pattern(size)); err != nil {
		return err
	}
	listed := 0
	for _, err := range b.List(ctx, "") {
		if err != nil {
			return err
		}
		listed++
	}
	if listed != 1 {
		return fmt.Errorf("%d objects are listed", listed)
	}
	return b.Delete(ctx, "key")
}

func outlivePut(ctx context.Context, b *s3bucket.Bucket, key string, data []byte) error {
	sum := sha256.Sum256(data)
	if err := b.Put(ctx, key, bytes.NewReader(data), &storage.PutOptions{IfAbsent: true, SHA256: sum[:]}); err != nil {
		return err
	}
	if object, err := b.Stat(ctx, key); err != nil || object.Size != int64(len(data)) {
		return fmt.Errorf("%+v, %w", object, err)
	}
	r, err := b.Get(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, data) {
		return fmt.Errorf("got %d of %d bytes: %w", len(got), len(data), err)
	}
	if err := b.Put(ctx, key, bytes.NewReader(data), ifAbsent); !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("the second Put: %w", err)
	}
	return nil
}

func TestAttemptsAreBounded(t *testing.T) {
	server := s3test.Start(t)
	proxy, url := through(t, server, storagetest.Every(storagetest.Fail.With(storagetest.ErrSlowDown)))
	cfg := &s3bucket.Config{Endpoint: url, Region: server.Region, AccessKeyID: server.AccessKey, SecretAccessKey: server.SecretKey, Attempts: 2}
	b, err := s3bucket.Open(t.Context(), server.Bucket, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = b.Put(t.Context(), "key", strings.NewReader("x"), nil)
	if err == nil || !strings.Contains(err.Error(), "SlowDown") || proxy.Count() != 2 {
		t.Fatalf("%d attempts: %v", proxy.Count(), err)
	}
}

func TestSilentAnswerIsGivenUp(t *testing.T) {
	server := s3test.Start(t)
	proxy, url := through(t, server, storagetest.NthOf(storagetest.OpPut, 1, storagetest.LoseAnswer.With(storagetest.ErrTimeout)))
	cfg := &s3bucket.Config{Endpoint: url, Region: server.Region, AccessKeyID: server.AccessKey, SecretAccessKey: server.SecretKey}
	b, err := s3bucket.OpenImpatient(t.Context(), server.Bucket, cfg, nil, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	// The server acted on the first, so that the second is refused.
	if err := b.Put(t.Context(), "key", strings.NewReader("text"), ifAbsent); err != nil {
		t.Fatal(err)
	}
	if proxy.Count(storagetest.OpPut) != 2 || string(get(t, b, "key")) != "text" {
		t.Fatalf("%d attempts", proxy.Count(storagetest.OpPut))
	}
}

func TestRoleIsAssumed(t *testing.T) {
	var asked []string
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked = append(asked, fmt.Sprint(req.FormValue("Action"), " ", req.FormValue("RoleArn"), " ", req.FormValue("ExternalId"), " ", req.FormValue("RoleSessionName"), " ", req.FormValue("DurationSeconds")))
		if !strings.Contains(req.Header.Get("Authorization"), "Credential=test-access/") {
			t.Errorf("asked with %s", req.Header.Get("Authorization"))
		}
		fmt.Fprintf(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>role-access</AccessKeyId><SecretAccessKey>role-secret</SecretAccessKey><SessionToken>role-token</SessionToken>
<Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	defer sts.Close()
	server := s3test.Start(t)
	proxy, url := through(t, server, nil)
	cfg := &s3bucket.Config{
		Endpoint: url, Region: server.Region, AccessKeyID: server.AccessKey, SecretAccessKey: server.SecretKey,
		Role: &s3bucket.Role{ARN: "arn:aws:iam::1:role/r", ExternalID: "ext", SessionName: "me", Duration: time.Hour, Endpoint: sts.URL},
	}
	b, err := s3bucket.Open(t.Context(), server.Bucket, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the server does not know the role's credentials
		_, err := b.Stat(t.Context(), "key")
		if err == nil || strings.Contains(err.Error(), "role-secret") || strings.Contains(err.Error(), "role-token") {
			t.Errorf("Stat: %v", err)
		}
	}
	if len(asked) != 1 || asked[0] != "AssumeRole arn:aws:iam::1:role/r ext me 3600" {
		t.Errorf("asked %q", asked)
	}
	for _, r := range proxy.Requests() {
		if !strings.Contains(r.Header.Get("Authorization"), "Credential=role-access/") || r.Header.Get("X-Amz-Security-Token") != "role-token" {
			t.Errorf("%v", r.Header)
		}
	}
}
