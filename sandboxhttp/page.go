package sandboxhttp

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

//go:embed ui
var uiFiles embed.FS

// PageOptions are the optional settings of NewPage. The zero value and nil are ready to use.
type PageOptions struct {
	// Title is the name shown on the page and on its tab; empty means "vivarium".
	Title string

	// Banner is a line of plain text above everything else, for what every reader must know: that a scripted stand-in answers, that
	// the server restarts tonight. Empty means none.
	Banner string

	// Suggestions are prompts offered on the start page; pressing one puts it into the message box. Nil means three that show
	// what Claude does in a sandbox; an empty slice means none.
	Suggestions []string
}

var suggestions = []string{
	"What is installed in this sandbox?",
	"Write a small program that prints the first 20 primes, and run it",
	"Make a one-page website about terrariums",
}

// Page returns the chat page for an API whose sandboxes are at apiPrefix, the path of the collection: "/sandbox" for a handler
// of [New] that is mounted on "/". The empty prefix means "/sandbox". Page panics where [NewPage] returns an error.
//
//	mux.Handle("/sandbox", h)
//	mux.Handle("/sandbox/", h)
//	mux.Handle("/", sandboxhttp.Page("/sandbox"))
func Page(apiPrefix string) http.Handler {
	h, err := NewPage(apiPrefix, nil)
	if err != nil {
		panic(err)
	}
	return h
}

// NewPage is [Page] with options. apiPrefix must be a path that begins with one slash: the page's Content-Security-Policy lets it
// call its own origin only.
//
// The page can be mounted on any pattern of an [http.ServeMux] that ends in a slash, with or without [http.StripPrefix]; it holds no secret and
// needs no login of its own. Where the API answers 401, it asks for a token, keeps it for as long as the tab is open, and sends it as
// "Authorization: Bearer". The handler is safe for concurrent use.
func NewPage(apiPrefix string, opts *PageOptions) (http.Handler, error) {
	if apiPrefix == "" {
		apiPrefix = "/sandbox"
	}
	if apiPrefix[0] != '/' || strings.HasPrefix(apiPrefix, "//") || strings.ContainsAny(apiPrefix, "?#\\") {
		return nil, fmt.Errorf("sandboxhttp: page for %q: the prefix must be a path that begins with one slash", apiPrefix)
	}
	if opts == nil {
		opts = &PageOptions{}
	}
	ui, err := loadUI()
	if err != nil {
		return nil, err
	}
	index, err := ui.index(strings.TrimRight(apiPrefix, "/"), opts)
	if err != nil {
		return nil, err
	}
	return &page{ui: ui, index: index}, nil
}

// contentSecurityPolicy lets the page run its own scripts and nothing else. Tool output may hold pictures, which travel as data:
// URLs; a picture on another host would tell that host what is read here.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

type page struct {
	ui    *ui
	index *asset
}

func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setPageHeaders(w.Header())
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "The page is read with GET.", http.StatusMethodNotAllowed)
		return
	}
	name := pagePath(r)
	if name == "" {
		w.Header().Set("Cache-Control", "no-cache")
		p.index.serve(w, r)
		return
	}
	hash, file, _ := strings.Cut(strings.TrimPrefix(name, "assets/"), "/")
	a := p.ui.assets[file]
	if a == nil || !strings.HasPrefix(name, "assets/") {
		http.NotFound(w, r)
		return
	}
	// Under another hash, another version of this server made the page: its files go on working, and are not kept.
	w.Header().Set("Cache-Control", "no-store")
	if hash == p.ui.hash {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	a.serve(w, r)
}

// pagePath is the path below the place where the page is mounted, without its first slash. A ServeMux leaves the pattern in the
// request, so that mounting needs no StripPrefix.
func pagePath(r *http.Request) string {
	name := r.URL.Path
	if i := strings.IndexByte(r.Pattern, '/'); i >= 0 {
		if mount := r.Pattern[i:]; strings.HasSuffix(mount, "/") && !strings.Contains(mount, "{") {
			name = strings.TrimPrefix(name, strings.TrimSuffix(mount, "/"))
		}
	}
	return strings.TrimPrefix(name, "/")
}

func setPageHeaders(h http.Header) {
	h.Set("Content-Security-Policy", contentSecurityPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
}

// ui is the embedded files of the page, ready to be served.
type ui struct {
	hash     string // of all of them: the modules import each other by name, so they change their address together
	assets   map[string]*asset
	template *template.Template
}

var loadUI = sync.OnceValues(func() (*ui, error) {
	u := &ui{assets: map[string]*asset{}}
	sum := sha256.New()
	err := fs.WalkDir(uiFiles, "ui", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := uiFiles.ReadFile(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(body), body)
		if path.Base(name) == "index.html" {
			u.template, err = template.New("index.html").Parse(string(body))
			return err
		}
		u.assets[strings.TrimPrefix(name, "ui/")], err = newAsset(name, body)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sandboxhttp: read the page: %w", err)
	}
	if u.template == nil {
		return nil, errors.New("sandboxhttp: read the page: it has no index.html")
	}
	u.hash = hex.EncodeToString(sum.Sum(nil)[:8])
	return u, nil
})

func (u *ui) index(apiPrefix string, opts *PageOptions) (*asset, error) {
	offered := opts.Suggestions
	if offered == nil {
		offered = suggestions
	}
	list, err := json.Marshal(offered)
	if err != nil {
		return nil, fmt.Errorf("sandboxhttp: page suggestions: %w", err)
	}
	title := opts.Title
	if title == "" {
		title = "vivarium"
	}
	var out bytes.Buffer
	err = u.template.Execute(&out, map[string]any{
		"API": apiPrefix, "Title": title, "Banner": opts.Banner, "Suggestions": string(list),
		"Assets": "assets/" + u.hash, "Styles": u.names(".css"), "Scripts": u.names(".js"),
	})
	if err != nil {
		return nil, fmt.Errorf("sandboxhttp: make the page: %w", err)
	}
	return newAsset("index.html", out.Bytes())
}

// names lists the assets with an extension. The style sheets' order is their names', and base.css comes first in it.
func (u *ui) names(ext string) []string {
	var out []string
	for name := range u.assets {
		if path.Ext(name) == ext {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// asset is one file, as it is and compressed.
type asset struct {
	kind, etag     string
	plain, gzipped []byte
}

// mediaTypes are set here because package mime asks the machine, and with nosniff a wrong answer keeps a script from running.
var mediaTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".svg":  "image/svg+xml",
}

func newAsset(name string, body []byte) (*asset, error) {
	kind, ok := mediaTypes[path.Ext(name)]
	if !ok {
		return nil, fmt.Errorf("%s is of no kind that a page is made of", name)
	}
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(body); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return &asset{kind: kind, etag: hex.EncodeToString(sum[:8]), plain: body, gzipped: out.Bytes()}, nil
}

func (a *asset) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("Vary", "Accept-Encoding")
	body, etag := a.plain, a.etag
	if acceptsGzip(r.Header.Get("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		body, etag = a.gzipped, a.etag+"-gzip"
	}
	h.Set("ETag", `"`+etag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if name == "gzip" {
			q := strings.TrimPrefix(strings.TrimSpace(params), "q=")
			return strings.Trim(q, "0.") != "" || q == ""
		}
	}
	return false
}
