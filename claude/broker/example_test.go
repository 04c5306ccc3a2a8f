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
