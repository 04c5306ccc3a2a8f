package vivarium_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

const module = "github.com/vivarium-go/vivarium"

// pkg is what these tests need of `go list -json`.
type pkg struct {
	ImportPath   string
	Name         string
	Dir          string
	Standard     bool
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// local is the path below the module, "." for the root.
func (p pkg) local() string {
	if p.ImportPath == module {
		return "."
	}
	return strings.TrimPrefix(p.ImportPath, module+"/")
}

// arrow says what the production code of a package, and of those below it, may
// import beside the standard library and its own subpackages.
type arrow struct {
	from  string
	local []string // packages of this module; "x/..." for x and all below
	other []string // prefixes of other modules' packages
}

// arrows are docs/design.md's, most specific first.
var arrows = []arrow{
	{from: "sandbox/driver"},
	{from: "sandbox/drivermock", local: []string{"sandbox/driver"}, other: []string{"go.uber.org/mock/gomock"}},
	{from: "sandbox/sandboxtest", local: []string{"sandbox", "sandbox/driver", "sandbox/localbox"}},
	{from: "sandbox/localbox", local: []string{"sandbox", "sandbox/driver", "internal/boundlisten"}, other: []string{"golang.org/x/sys/", "github.com/klauspost/compress/", "github.com/google/go-containerregistry/"}},
	{from: "sandbox/modalbox/modaltest", local: []string{"internal/modalemu", "sandbox", "sandbox/driver"}, other: []string{"github.com/modal-labs/modal-client/go", "google.golang.org/grpc/codes"}},
	{from: "sandbox/modalbox", local: []string{"sandbox", "sandbox/driver"}, other: []string{"github.com/modal-labs/modal-client/go", "google.golang.org/grpc"}},
	{from: "sandbox/pool/pooltest", local: []string{"sandbox", "sandbox/pool"}, other: []string{"github.com/google/go-cmp/"}},
	{from: "sandbox/pool", local: []string{"sandbox"}},
	{from: "sandbox", local: []string{"sandbox/driver"}},
	{from: "claude/broker", local: []string{"internal/boundlisten"}},
	{from: "claude/claudetest/scriptedcli", local: []string{"sandbox", "sandbox/driver"}},
	{from: "claude/claudetest"},
	{from: "claude/mcpserver", local: []string{"claude"}, other: []string{"github.com/modelcontextprotocol/go-sdk/"}},
	{from: "claude/runlog/runlogtest", local: []string{"claude", "claude/runlog"}},
	{from: "claude/runlog/pglog", local: []string{"claude/runlog"}},
	{from: "claude/runlog", local: []string{"claude", "claude/internal/filelock", "sandbox"}},
	{from: "claude", local: []string{"sandbox", "internal/boundlisten"}, other: []string{"golang.org/x/sys/", "github.com/google/jsonschema-go/"}},
	{from: "storage/dirbucket", local: []string{"storage"}},
	{from: "storage/s3bucket", local: []string{"storage"}, other: []string{"github.com/aws/", "golang.org/x/sync/"}},
	{from: "storage/storagetest", local: []string{"storage", "storage/..."}, other: []string{"github.com/aws/"}},
	{from: "storage", other: []string{"golang.org/x/sync/", "github.com/klauspost/compress/"}},
	{from: "sandboxhttp/sqlstore", local: []string{"sandbox", "sandbox/pool", "sandboxhttp", "sandboxhttp/usage"}},
	{from: "sandboxhttp/storetest", local: []string{"sandboxhttp"}, other: []string{"github.com/google/go-cmp/"}},
	{from: "sandboxhttp/usage/usagetest", local: []string{"sandboxhttp/usage"}, other: []string{"github.com/google/go-cmp/"}},
	{from: "sandboxhttp/usage", other: []string{"golang.org/x/time/rate"}},
	{from: "sandboxhttp", local: []string{"sandbox", "claude", "claude/runlog", "sandbox/pool", "sandboxhttp/usage", "storage"}},
	{from: "internal/boundlisten"},
	{from: "internal", local: []string{"..."}, other: []string{""}},
	{from: "examples", local: []string{"..."}, other: []string{""}},
}

func goList(t *testing.T, args ...string) []pkg {
	t.Helper()
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("the go command is not on PATH")
	}
	cmd := exec.Command(goTool, append([]string{"list", "-e", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			t.Fatalf("go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
	return pkgs
}

// within reports whether pattern, a path or "x/...", covers p.
func within(p, pattern string) bool {
	if pattern == "..." {
		return true
	}
	if dir, ok := strings.CutSuffix(pattern, "/..."); ok {
		return p == dir || strings.HasPrefix(p, dir+"/")
	}
	return p == pattern
}

func arrowOf(local string) (arrow, bool) {
	for _, a := range arrows {
		if within(local, a.from+"/...") {
			return a, true
		}
	}
	return arrow{}, false
}

// allows says why an import is not among a's, or "".
func (a arrow) allows(imp string) string {
	if local, ok := strings.CutPrefix(imp, module+"/"); ok {
		own := within(local, a.from+"/internal/...")
		listed := slices.ContainsFunc(a.local, func(pattern string) bool { return within(local, pattern) })
		if own || listed {
			return ""
		}
		return fmt.Sprintf("%s may import of this module only %v", a.from, a.local)
	}
	if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") {
		return "" // the standard library
	}
	if slices.ContainsFunc(a.other, func(prefix string) bool { return strings.HasPrefix(imp, prefix) }) {
		return ""
	}
	return fmt.Sprintf("%s may import of other modules only %v", a.from, a.other)
}

func TestArrows(t *testing.T) {
	for _, p := range goList(t, "./...") {
		if p.local() == "." {
			for _, imp := range p.Imports {
				t.Errorf("the root package documents only, and imports %s", imp)
			}
			continue
		}
		a, ok := arrowOf(p.local())
		if !ok {
			t.Errorf("package %s is in no row of arrows; add it to docs/design.md and here", p.local())
			continue
		}
		for _, imp := range p.Imports {
			if why := a.allows(imp); why != "" {
				t.Errorf("%s imports %s: %s", p.local(), imp, why)
			}
		}
	}
}

// testOnly matches packages that exist for tests. Examples may use the scripted
// model, since that is what they run on where there is no key.
var testOnly = regexp.MustCompile(`(test|mock)(/|$)`)

func TestProductionImportsNoTestPackage(t *testing.T) {
	for _, p := range goList(t, "./...") {
		if testOnly.MatchString(p.local()) {
			continue
		}
		for _, imp := range p.Imports {
			local, ours := strings.CutPrefix(imp, module+"/")
			if !ours || !testOnly.MatchString(local) {
				continue
			}
			if within(p.local(), "examples/...") && local == "claude/claudetest" {
				continue
			}
			t.Errorf("%s imports %s, which is for tests", p.local(), local)
		}
	}
}

func TestNobodyImportsExamples(t *testing.T) {
	for _, p := range goList(t, "./...") {
		if within(p.local(), "examples/...") {
			continue
		}
		for _, imp := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if strings.HasPrefix(imp, module+"/examples") {
				t.Errorf("%s imports %s", p.local(), imp)
			}
		}
	}
}

// A binary that runs sandboxes on this machine links nothing of a cloud.
func TestLocalBinaryStaysSmall(t *testing.T) {
	banned := []string{"google.golang.org/", "github.com/aws/", "github.com/modal-labs/", "github.com/chromedp/", "github.com/modelcontextprotocol/", "testing"}
	for _, p := range goList(t, "-deps", "./sandbox/localbox", "./claude") {
		for _, b := range banned {
			if p.ImportPath == b || strings.HasSuffix(b, "/") && strings.HasPrefix(p.ImportPath, b) {
				t.Errorf("sandbox/localbox and claude link %s", p.ImportPath)
			}
		}
	}
}

var bannedNames = []string{"Manager", "Service", "Impl", "Helper", "Util", "Utils", "Base"}

var bannedPackages = []string{"util", "utils", "common", "types", "base", "helpers", "misc", "shared"}

// TestNames refuses the names that docs/design.md bans, in every package.
func TestNames(t *testing.T) {
	std := map[string]bool{}
	for _, p := range goList(t, "std") {
		if !strings.Contains("/"+p.ImportPath, "/internal/") && !strings.HasPrefix(p.ImportPath, "vendor/") {
			std[p.Name] = true
		}
	}
	for _, p := range goList(t, "./...") {
		if slices.Contains(bannedPackages, p.Name) {
			t.Errorf("package %s: the name %q says nothing", p.local(), p.Name)
		}
		// "driver" is what database/sql calls the same thing.
		if p.Name != "main" && p.Name != "driver" && std[p.Name] {
			t.Errorf("package %s is named like one of the standard library", p.local())
		}
		eachFile(t, p, func(name string, f *ast.File) {
			ast.Inspect(f, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok || !spec.Name.IsExported() {
					return true
				}
				checkTypeName(t, p.Name, name, spec.Name.Name)
				return true
			})
		})
	}
}

func checkTypeName(t *testing.T, pkgName, file, name string) {
	t.Helper()
	for _, b := range bannedNames {
		if name == b || strings.HasSuffix(name, b) {
			t.Errorf("%s: type %s: %q is a name we do not use", file, name, b)
		}
	}
	rest := name[min(len(pkgName), len(name)):]
	if rest != "" && unicode.IsUpper(rune(rest[0])) && strings.EqualFold(name[:len(pkgName)], pkgName) {
		t.Errorf("%s: type %s repeats its package's name", file, name)
	}
}

// TestPackageDocs wants every package to say what it is for, once.
func TestPackageDocs(t *testing.T) {
	for _, p := range goList(t, "./...") {
		docs := 0
		eachFile(t, p, func(name string, f *ast.File) {
			if f.Doc == nil || strings.HasSuffix(name, "_test.go") {
				return
			}
			docs++
			want := "Package " + p.Name + " "
			if p.Name == "main" {
				want = "Command "
			}
			if text := f.Doc.Text(); !strings.HasPrefix(text, want) {
				t.Errorf("%s: the package comment starts %q, not %q", name, firstLine(text), want)
			}
		})
		if docs != 1 {
			t.Errorf("package %s has %d package comments, want 1", p.local(), docs)
		}
	}
}

// TestExportedDocs wants a comment on everything exported outside of internal.
func TestExportedDocs(t *testing.T) {
	for _, p := range goList(t, "./...") {
		if strings.Contains(p.local(), "internal") || p.Name == "main" || p.Name == "drivermock" {
			continue
		}
		eachFile(t, p, func(name string, f *ast.File) {
			if strings.HasSuffix(name, "_test.go") {
				return
			}
			for _, decl := range f.Decls {
				for _, missing := range undocumented(decl) {
					t.Errorf("%s: %s has no doc comment", name, missing)
				}
			}
		})
	}
}

func undocumented(decl ast.Decl) []string {
	var missing []string
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && d.Name.Name != "Error" && exportedReceiver(d) {
			missing = append(missing, "func "+d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
					missing = append(missing, "type "+s.Name.Name)
				}
			case *ast.ValueSpec:
				if s.Names[0].IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
					missing = append(missing, s.Names[0].Name)
				}
			}
		}
	}
	return missing
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if index, ok := typ.(*ast.IndexExpr); ok {
		typ = index.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported()
}

func eachFile(t *testing.T, p pkg, fn func(name string, f *ast.File)) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(p.Dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		fn(path.Join(p.local(), filepath.Base(name)), f)
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// stale matches words in Go source that mark work put off.
var stale = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)

// TestNoWorkPutOff refuses marks of unfinished work, and tests that sleep.
func TestNoWorkPutOff(t *testing.T) {
	eachSource(t, func(name string, data []byte) {
		if name == "repo_test.go" {
			return
		}
		for i, line := range bytes.Split(data, []byte("\n")) {
			if stale.Match(line) {
				t.Errorf("%s:%d: %s", name, i+1, bytes.TrimSpace(line))
			}
			synced := bytes.Contains(data, []byte(`"testing/synctest"`)) // sleeping costs nothing there
			if !synced && strings.HasSuffix(name, "_test.go") && bytes.Contains(line, []byte("time.Sleep(")) {
				t.Errorf("%s:%d: a test that sleeps; wait for the event, or use testing/synctest", name, i+1)
			}
		}
	})
}

func eachSource(t *testing.T, fn func(name string, data []byte)) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != "." && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // an editor's temporary file
		}
		if err == nil {
			fn(filepath.ToSlash(name), data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestReadme wants the Go of README to be what is compiled and run here.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllSubmatch(readme, -1)
	if len(blocks) == 0 {
		t.Error("README shows no Go")
	}
	for _, block := range blocks {
		if !bytes.Contains(source, block[1]) {
			t.Errorf("README shows what is not in example_test.go:\n%s", block[1])
		}
	}
}

// TestDocLinks wants every file that the documentation links to.
func TestDocLinks(t *testing.T) {
	docs, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#:]+)[)#]`)
	for _, doc := range append(docs, "README.md", "CONTRIBUTING.md", "CHANGELOG.md") {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, m := range link.FindAllSubmatch(text, -1) {
			target := filepath.Join(filepath.Dir(doc), string(m[1]))
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", doc, m[1], err)
			}
		}
	}
}
