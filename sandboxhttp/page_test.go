package sandboxhttp_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandboxhttp"
)

func ExamplePage() {
	mux := http.NewServeMux()
	mux.Handle("/", sandboxhttp.Page("/sandbox"))

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	fmt.Println(w.Code, w.Header().Get("Content-Type"))
	// Output: 200 text/html; charset=utf-8
}

func ExampleNewPage() {
	page, err := sandboxhttp.NewPage("/api/sandbox", &sandboxhttp.PageOptions{
		Title:       "Workbench",
		Banner:      "This server restarts every night at 3.",
		Suggestions: []string{"Summarise what is in /workspace"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/chat/", page)

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/chat/", nil))
	fmt.Println(w.Code, strings.Contains(w.Body.String(), "restarts every night"))
	// Output: 200 true
}

func get(h http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

var (
	script = regexp.MustCompile(`<script type="module" src="([^"]+)"></script>`)
	asset  = regexp.MustCompile(`(?:src|href)="(assets/[^"]+)"`)
)

func TestPageWorksUnderEveryMount(t *testing.T) {
	mux := http.NewServeMux()
	page := sandboxhttp.Page("/sandbox")
	mux.Handle("/", page)
	mux.Handle("/ui/", page)
	mux.Handle("/stripped/", http.StripPrefix("/stripped", page))
	mux.Handle("GET /deep/er/", page)
	for _, mount := range []string{"/", "/ui/", "/stripped/", "/deep/er/"} {
		w := get(mux, mount)
		if w.Code != http.StatusOK {
			t.Errorf("%s: status %d", mount, w.Code)
			continue
		}
		links := asset.FindAllStringSubmatch(w.Body.String(), -1)
		if len(links) < 10 {
			t.Errorf("%s: the page names %d assets", mount, len(links))
		}
		for _, link := range links {
			if a := get(mux, mount+link[1]); a.Code != http.StatusOK || a.Body.Len() == 0 {
				t.Errorf("%s%s: status %d, %d bytes", mount, link[1], a.Code, a.Body.Len())
			}
		}
		for _, path := range []string{"nothing", "assets/", "assets/x/index.html", "assets/x/../page.go", "index.html"} {
			if w := get(mux, mount+path); w.Code == http.StatusOK {
				t.Errorf("%s%s: status 200", mount, path)
			}
		}
	}
}

func TestPageSecurityHeaders(t *testing.T) {
	page := sandboxhttp.Page("/sandbox")
	index := get(page, "/")
	for _, path := range []string{"/", "/" + script.FindStringSubmatch(index.Body.String())[1], "/nothing"} {
		h := get(page, path).Header()
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{
			"default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "connect-src 'self'", "base-uri 'none'",
			"form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'",
		} {
			if !strings.Contains(csp+";", want+";") {
				t.Errorf("%s: the policy lacks %q", path, want)
			}
		}
		if strings.Contains(csp, "unsafe") {
			t.Errorf("%s: policy %q", path, csp)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: headers %v", path, h)
		}
	}
	if inline := regexp.MustCompile(`<script[^>]*>[^<]|<style|\son\w+=|\sstyle=`).FindString(index.Body.String()); inline != "" {
		t.Errorf("the page has inline code: %q", inline)
	}
}

func TestPageCaching(t *testing.T) {
	page := sandboxhttp.Page("/sandbox")
	index := get(page, "/")
	if got := index.Header().Get("Cache-Control"); got != "no-cache" {
		t.Errorf("the page's Cache-Control is %q", got)
	}
	if w := get(page, "/", "If-None-Match", index.Header().Get("ETag")); w.Code != http.StatusNotModified {
		t.Errorf("unchanged page: status %d", w.Code)
	}
	src := "/" + script.FindStringSubmatch(index.Body.String())[1]
	if got := get(page, src).Header().Get("Cache-Control"); !strings.Contains(got, "immutable") {
		t.Errorf("%s: Cache-Control %q", src, got)
	}
	old := regexp.MustCompile(`assets/\w+/`).ReplaceAllString(src, "assets/0123456789abcdef/")
	if w := get(page, old); w.Code != http.StatusOK || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("an asset of another version: status %d, Cache-Control %q", w.Code, w.Header().Get("Cache-Control"))
	}
	other, err := sandboxhttp.NewPage("/sandbox", &sandboxhttp.PageOptions{Title: "Other"})
	if err != nil {
		t.Fatal(err)
	}
	if get(other, "/").Header().Get("ETag") == index.Header().Get("ETag") {
		t.Error("two different pages have one ETag")
	}
}

func TestPageCompression(t *testing.T) {
	page := sandboxhttp.Page("/sandbox")
	plain := get(page, "/")
	total := 0
	for _, link := range append(asset.FindAllStringSubmatch(plain.Body.String(), -1), []string{"", ""}) {
		want, got := get(page, "/"+link[1]), get(page, "/"+link[1], "Accept-Encoding", "br, gzip")
		if got.Header().Get("Content-Encoding") != "gzip" || got.Header().Get("ETag") == want.Header().Get("ETag") {
			t.Fatalf("/%s: headers %v", link[1], got.Header())
		}
		total += got.Body.Len()
		z, err := gzip.NewReader(got.Body)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(z); err != nil || string(body) != want.Body.String() {
			t.Errorf("/%s: uncompressed to other bytes (%v)", link[1], err)
		}
	}
	t.Logf("the whole page is %d bytes compressed", total)
	if total > 80<<10 {
		t.Errorf("the whole page is %d bytes compressed", total)
	}
	if w := get(page, "/", "Accept-Encoding", "gzip;q=0"); w.Header().Get("Content-Encoding") != "" {
		t.Error("compressed for a client that refuses it")
	}
}

func TestPageOptionsAreText(t *testing.T) {
	page, err := sandboxhttp.NewPage("/api/sandbox/", &sandboxhttp.PageOptions{
		Title: `</title><script>alert(1)</script>`, Banner: `<img src=x onerror=alert(1)>`, Suggestions: []string{`"><script>alert(1)</script>`},
	})
	if err != nil {
		t.Fatal(err)
	}
	body := get(page, "/").Body.String()
	if strings.Contains(body, "<script>") || strings.Contains(body, "<img") {
		t.Errorf("an option became markup:\n%s", body)
	}
	if !strings.Contains(body, `data-api="/api/sandbox"`) || !strings.Contains(body, "&lt;img src=x onerror=alert(1)&gt;") {
		t.Errorf("the page reads:\n%s", body)
	}
}

func TestPageRefusesForeignPrefixes(t *testing.T) {
	for _, prefix := range []string{"sandbox", "//evil.example/sandbox", "https://evil.example/", "/a?b", `/\evil.example`} {
		if _, err := sandboxhttp.NewPage(prefix, nil); err == nil {
			t.Errorf("%q was taken", prefix)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("Page did not panic")
		}
	}()
	sandboxhttp.Page("https://evil.example/")
}

func TestPageIsOnlyRead(t *testing.T) {
	w := httptest.NewRecorder()
	sandboxhttp.Page("").ServeHTTP(w, httptest.NewRequest("POST", "/", nil))
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: status %d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
}
