package sandboxhttp_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// openProvider stands for localbox.Open(nil), which needs a machine that can
// isolate sandboxes.
func openProvider() *sandbox.Provider { return emptyPlace().provider() }

// A handler is mounted like any other: here below a prefix, next to the page.
func ExampleNew() {
	provider := openProvider() // as localbox.Open(nil) does
	h, err := sandboxhttp.New(&sandboxhttp.Config{
		Provider: provider,
		Auth:     sandboxhttp.Local("me"),
		Limits:   sandboxhttp.Limits{Sandboxes: 5},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer h.Shutdown(context.Background())

	mux := http.NewServeMux()
	mux.Handle("/api/v1/", http.StripPrefix("/api/v1", h))
	mux.Handle("/", sandboxhttp.Page("/api/v1/sandbox"))

	srv := httptest.NewServer(mux)
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL + "/api/v1/sandbox")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Print(resp.StatusCode, " ", string(body))
	// Output: 200 {"sandboxes":[]}
}

// A server for one team that shares a secret.
func ExampleBearerToken() {
	auth := sandboxhttp.BearerToken("a long random secret", &sandboxhttp.Principal{Account: "team"})

	r := httptest.NewRequest(http.MethodGet, "/sandbox", nil)
	_, err := auth(r)
	fmt.Println(err)
	r.Header.Set("Authorization", "Bearer a long random secret")
	p, err := auth(r)
	fmt.Println(p.Account, err)
	// Output:
	// unauthenticated: send the server's token as Authorization: Bearer TOKEN
	// team <nil>
}

// A server on a loopback address needs no login, and answers nobody else.
func ExampleLocal() {
	auth := sandboxhttp.Local("me")

	r := httptest.NewRequest(http.MethodGet, "http://localhost:8080/sandbox", nil)
	r.RemoteAddr = "127.0.0.1:50000"
	p, err := auth(r)
	fmt.Println(p.Account, err)
	r.Host = "a-page-on-the-internet.example" // its name was made to point here
	_, err = auth(r)
	fmt.Println(err)
	// Output:
	// me <nil>
	// forbidden: ask for localhost or a loopback address, not by another name
}

// Auth is where one's own login comes in.
func ExampleAuth() {
	var auth sandboxhttp.Auth = func(r *http.Request) (*sandboxhttp.Principal, error) {
		user, password, ok := r.BasicAuth()
		if !ok || user != "ann" || password != "as the users' directory says" {
			return nil, sandboxhttp.ErrUnauthenticated
		}
		return &sandboxhttp.Principal{Account: user, Role: sandboxhttp.RoleViewer}, nil
	}
	h, err := sandboxhttp.New(&sandboxhttp.Config{Provider: openProvider(), Auth: auth})
	if err != nil {
		log.Fatal(err)
	}
	defer h.Shutdown(context.Background())

	for _, method := range []string{"GET", "POST"} {
		r := httptest.NewRequest(method, "/sandbox", strings.NewReader(""))
		r.SetBasicAuth("ann", "as the users' directory says")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(method, w.Code)
	}
	// Output:
	// GET 200
	// POST 403
}

// Ending a server: first the handler, so that streams end, then the server.
func ExampleHandler_Shutdown() {
	h, err := sandboxhttp.New(&sandboxhttp.Config{Provider: openProvider(), Auth: sandboxhttp.Local("me")})
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: h}

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	fmt.Println(h.Shutdown(ctx), srv.Shutdown(ctx))
	// Output: <nil> <nil>
}

// Workspaces in one bucket for all accounts: Key never is the same for two of
// them. A bucket of the client's own is refused here.
func ExampleVolumeRequest() {
	bucket := new(storagetest.Memory) // as dirbucket.Open or s3bucket.Open give
	volumes := func(_ context.Context, account string, req sandboxhttp.VolumeRequest) (*storage.Volume, error) {
		if req.S3 != nil {
			return nil, fmt.Errorf("%w: leave s3 out: workspaces are kept here", sandbox.ErrInvalid)
		}
		return storage.NewVolume(bucket, req.Key, &storage.Options{Exclude: []string{"node_modules/"}}), nil
	}
	h, err := sandboxhttp.New(&sandboxhttp.Config{Provider: openProvider(), Auth: sandboxhttp.Local("me"), Volumes: volumes})
	if err != nil {
		log.Fatal(err)
	}
	defer h.Shutdown(context.Background())

	r := httptest.NewRequest(http.MethodPost, "http://localhost/sandbox", strings.NewReader(`{"volume_name":"notes","s3":{"bucket":"mine"}}`))
	r.RemoteAddr = "127.0.0.1:50000"
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(w.Code)
	// Output: 422
}

// Sandboxes that nobody uses end after an hour, saved, and their owners hear of it before.
func ExampleConfig_pool() {
	h, err := sandboxhttp.New(&sandboxhttp.Config{
		Provider: openProvider(),
		Auth:     sandboxhttp.Local("me"),
		Pool: &pool.Options{
			Idle:  time.Hour,
			Grace: 10 * time.Minute,
			Notify: func(_ context.Context, e pool.Event) {
				if e.Kind == pool.EventWarning {
					log.Printf("to %s: %s ends at %s (%s)", e.Record.Owner, e.Record.ID, e.At, e.Reason)
				}
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer h.Shutdown(context.Background())

	r := httptest.NewRequest(http.MethodGet, "http://localhost/sandbox", nil)
	r.RemoteAddr = "127.0.0.1:1000"
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	fmt.Println(rec.Code)
	// Output: 200
}
