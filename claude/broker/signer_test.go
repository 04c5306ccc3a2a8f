package broker_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/claude/broker"
)

// vertex asks for a model in the way that Google's cloud wants it: the model in the
// path, a version in the body, a token of the cloud's.
type vertex struct{ token func() (string, error) }

func (v vertex) Sign(r *http.Request) error {
	token, err := v.token()
	if err != nil {
		return err
	}
	var body map[string]json.RawMessage
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return err
	}
	var model string
	if err := json.Unmarshal(body["model"], &model); err != nil {
		return err
	}
	delete(body, "model")
	body["anthropic_version"] = json.RawMessage(`"vertex-2023-10-16"`)
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r.URL.Path = "/v1/projects/p/models/" + model + ":streamRawPredict"
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
	r.Header.Set("Authorization", "Bearer "+token)
	return nil
}

// framed is an upstream whose streams have another form.
type framed struct{ vertex }

func (framed) RewriteAnswer(resp *http.Response) error {
	if resp.Header.Get("Content-Type") != "application/x-frames" {
		return errors.New("no frames")
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	resp.Header.Set("Content-Type", "text/event-stream")
	resp.Body = io.NopCloser(bytes.NewReader(bytes.ReplaceAll(data, []byte("|"), []byte("\n"))))
	return nil
}

func TestSigner(t *testing.T) {
	signed := func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/v1/projects/p/models/claude-opus-4-5:streamRawPredict" || r.Header.Get("Authorization") != "Bearer "+theKey ||
			!strings.Contains(string(body), "vertex-2023-10-16") || strings.Contains(string(body), "opus") || r.Header.Get("X-Api-Key") != "" {
			rw.WriteHeader(http.StatusBadRequest)
			return
		}
		opusStream(rw, r)
	}
	good := vertex{func() (string, error) { return theKey, nil }}
	for name, test := range map[string]struct {
		signer   broker.Signer
		upstream http.HandlerFunc
		body     string
		status   int
		errType  string
	}{
		"signs": {good, signed, opusRequest, 200, ""},
		"rewrites": {framed{good}, func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", "application/x-frames")
			_, _ = fmt.Fprintf(rw, "event: message_start|data: %s||event: message_delta|data: %s||event: message_stop|data: %s||", startEvent, endEvent, stopEvent)
		}, opusRequest, 200, ""},
		"cannot rewrite": {framed{good}, signed, opusRequest, 502, "api_error"},
		"cannot sign":    {vertex{func() (string, error) { return "", errors.New("vault is shut") }}, signed, opusRequest, 502, "api_error"},
		"a refused body": {good, signed, `{"model":"m","mcp_servers":[]}`, 403, "permission_error"},
		"a cut body":     {good, signed, `{"model":"m"`, 400, "invalid_request_error"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, test.upstream, broker.Options{Signer: test.signer})
			resp, body := w.do(t, http.MethodPost, "/v1/messages", test.body)
			if test.status != http.StatusOK {
				wantError(t, resp, body, test.status, test.errType)
				if strings.Contains(body, "vault") {
					t.Errorf("the inside learns %s", body)
				}
				return
			}
			if resp.StatusCode != http.StatusOK || w.token.Usage() != opusUsage {
				t.Errorf("got %d %s, used %+v", resp.StatusCode, body, w.token.Usage())
			}
		})
	}
}

// A gateway that wants a header of its own.
type gateway struct{ team string }

func (g gateway) Sign(r *http.Request) error {
	r.Header.Set("X-Team", g.team)
	return nil
}

func ExampleSigner() {
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, "for the team ", r.Header.Get("X-Team"))
	}))
	defer model.Close()
	b, err := broker.New(&broker.Options{Upstream: model.URL, Signer: gateway{"blue"}, Transport: model.Client().Transport})
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/v1/models", nil)
	r.Header.Set("X-Api-Key", b.NewToken(nil).Value())
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	fmt.Println(w.Body)
	// Output: for the team blue
}
