package egress_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/egress"
)

func Example() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	p := egress.New(driver.Network{Mode: driver.NetworkAllowlist, Domains: []string{"proxy.golang.org"}}, nil)
	served := make(chan error, 1)
	go func() { served <- p.Serve(l) }()

	tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: l.Addr().String()})}
	resp, err := (&http.Client{Transport: tr}).Get("http://example.com/")
	if err != nil {
		fmt.Println(err)
		return
	}
	text, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	fmt.Print(resp.StatusCode, " ", string(text))

	tr.CloseIdleConnections()
	p.Close()
	<-served
	// Output: 403 vivarium: example.com:80 is not reachable from this sandbox: its name is not on the list of this sandbox's network; add "example.com" to Network.Domains
}

func ExampleCheck() {
	err := egress.Check(driver.Network{Mode: driver.NetworkAllowlist, Domains: []string{"*.example.com", "10.0.0.1"}})
	fmt.Println(err)
	// Output: domain "10.0.0.1" is no name; addresses go in Network.CIDRs, and ports cannot be named
}

func ExampleEnv() {
	fmt.Println(egress.Env("127.0.0.1:3128")[0])
	// Output: HTTP_PROXY=http://127.0.0.1:3128
}
