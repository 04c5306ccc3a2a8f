package broker_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/vivarium-go/vivarium/claude/broker"
)

// What is inside has a token, what is outside sees the key.
func Example() {
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, "the model got the key: ", r.Header.Get("X-Api-Key") == "sk-ant-example-key")
	}))
	defer model.Close()
	b, err := broker.New(&broker.Options{Upstream: model.URL, Key: broker.APIKey("sk-ant-example-key"), Transport: model.Client().Transport})
	if err != nil {
		log.Fatal(err)
	}
	front := httptest.NewServer(b)
	defer front.Close()
	token := b.NewToken(nil)
	for range 2 {
		r, err := http.NewRequest(http.MethodPost, front.URL+"/v1/messages", strings.NewReader("{}"))
		if err != nil {
			log.Fatal(err)
		}
		r.Header.Set("X-Api-Key", token.Value())
		resp, err := front.Client().Do(r)
		if err != nil {
			log.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(resp.StatusCode, string(body))
		if err := resp.Body.Close(); err != nil {
			log.Fatal(err)
		}
		token.Revoke()
	}
	// Output:
	// 200 the model got the key: true
	// 401 {"error":{"message":"broker: the token is not, or no longer, valid here","type":"authentication_error"},"type":"error"}
}

// A run with a budget, of an account, and a ledger of what was used.
func ExampleBroker_NewToken() {
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, `{"model":"claude-opus-5-5","usage":{"input_tokens":1000,"output_tokens":2000}}`)
	}))
	defer model.Close()
	b, err := broker.New(&broker.Options{
		Upstream: model.URL, Key: broker.APIKey("sk-ant-example-key"), Transport: model.Client().Transport,
		Observe: func(e broker.Event) { fmt.Println(e.Account, e.Run, e.Outcome, e.Usage.Cost) },
	})
	if err != nil {
		log.Fatal(err)
	}
	account := broker.NewAccount("acme", &broker.AccountOptions{Limits: broker.Limits{Cost: 20 * broker.Dollar, RequestsPerSecond: 5}})
	token := b.NewToken(&broker.TokenOptions{Account: account, Run: "run-7", Limits: broker.Limits{Cost: broker.Dollars(0.03)}})
	defer token.Revoke()
	for range 2 {
		r := httptest.NewRequest(http.MethodPost, "/v1/messages", strings.NewReader(`{"model":"claude-opus-5-5","max_tokens":4000}`))
		r.Header.Set("X-Api-Key", token.Value())
		w := httptest.NewRecorder()
		b.ServeHTTP(w, r)
		fmt.Println(w.Code, token.Usage().Tokens(), "tokens")
	}
	// Output:
	// acme run-7 completed $0.044
	// 200 3000 tokens
	// acme run-7 refused $0.00
	// 402 3000 tokens
}

// The tokens that package claude asks for are of an account, with a budget each.
func ExampleBroker_With() {
	b, err := broker.New(&broker.Options{Key: broker.APIKey("sk-ant-example-key")})
	if err != nil {
		log.Fatal(err)
	}
	account := broker.NewAccount("acme", nil)
	endpoint := b.With(broker.TokenOptions{Account: account, Limits: broker.Limits{Cost: broker.Dollar}}) // for claude.Endpoint.Handler
	_, revoke, err := endpoint.IssueToken()
	if err != nil {
		log.Fatal(err)
	}
	revoke()
	fmt.Println(account.Usage().Cost)
	// Output: $0.00
}
