package s3bucket_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/internal/s3test"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/s3bucket"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// TestFaultsOnTheWireAreOutlived lets each kind of request fail once, in each way,
// before and after the server acts. Put, Stat, Get, List and Delete go well all the same.
func TestFaultsOnTheWireAreOutlived(t *testing.T) {
	server := s3test.Start(t)
	ops := []storagetest.Op{
		storagetest.OpPut, storagetest.OpCreateUpload, storagetest.OpPutPart, storagetest.OpCompleteUpload,
		storagetest.OpGet, storagetest.OpStat, storagetest.OpList, storagetest.OpDelete,
	}
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
			for _, op := range ops {
				proxy, url := through(t, server, storagetest.NthOf(op, 1, fault))
				prefix := strings.ReplaceAll(name+"-"+string(op)+"/", " ", "-")
				b := opened(t, server, url, &s3bucket.Options{PartSize: 5 * mib, Prefix: prefix})
				outlive(t, b)
				if proxy.Count(op) == 0 {
					t.Errorf("no %s was sent", op)
				}
			}
		})
	}
}

// outlive does every kind of request, conditionally where it can.
func outlive(t *testing.T, b *s3bucket.Bucket) {
	t.Helper()
	for key, size := range map[string]int{"small": 4096, "large": 6 * mib} {
		data := pattern(size)
		sum := sha256.Sum256(data)
		if err := b.Put(t.Context(), key, bytes.NewReader(data), &storage.PutOptions{IfAbsent: true, SHA256: sum[:]}); err != nil {
			t.Fatalf("Put %s: %v", key, err)
		}
		if object, err := b.Stat(t.Context(), key); err != nil || object.Size != int64(size) {
			t.Fatalf("Stat %s: %+v, %v", key, object, err)
		}
		if !bytes.Equal(get(t, b, key), data) {
			t.Fatalf("Get %s: the bytes differ", key)
		}
		if err := b.Put(t.Context(), key, bytes.NewReader(data), ifAbsent); !errors.Is(err, fs.ErrExist) {
			t.Fatalf("second Put %s: %v", key, err)
		}
	}
	listed := 0
	for _, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		listed++
	}
	if listed != 2 {
		t.Fatalf("%d objects are listed", listed)
	}
	if err := b.Delete(t.Context(), "small"); err != nil {
		t.Fatal(err)
	}
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
