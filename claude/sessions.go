package claude

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// SessionInfo is a conversation that is kept in a sandbox. All but its ID, Size and
// Modified is what was found in its file, which what runs in the sandbox can write.
type SessionInfo struct {
	// ID is what Client.Resume takes.
	ID string
	// Title is what the CLI or the user calls it; empty where nobody has.
	Title string
	// FirstPrompt is what it began with, at most 200 bytes of it.
	FirstPrompt string
	// Dir is the directory that Claude worked in.
	Dir string
	// GitBranch is the branch that was checked out there.
	GitBranch string
	// Modified is when something was said last, and Size the bytes of its file.
	Modified time.Time
	Size     int64

	file string // in the sandbox
}

// ListSessions gives the conversations that are kept in the sandbox, the newest
// first. Options.Env counts, as it may have another HOME or CLAUDE_CONFIG_DIR.
func (c *Client) ListSessions(ctx context.Context) ([]SessionInfo, error) {
	st, err := c.openStore(ctx)
	if err != nil {
		return nil, err
	}
	var all []SessionInfo
	err = st.each(func(file string, info fs.FileInfo) error {
		s := SessionInfo{ID: idOf(file), Modified: info.ModTime(), Size: info.Size(), file: file}
		if err := st.describe(&s); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		all = append(all, s)
		return nil
	})
	slices.SortStableFunc(all, func(a, b SessionInfo) int {
		return cmp.Or(b.Modified.Compare(a.Modified), cmp.Compare(a.ID, b.ID))
	})
	return all, err
}

// newestSession is the one that Options.Continue means.
func (c *Client) newestSession(ctx context.Context) (string, error) {
	all, err := c.ListSessions(ctx)
	if err != nil {
		return "", err
	}
	dir := cmp.Or(c.opts.Dir, c.sb.Dir())
	for _, s := range all {
		if s.Dir == dir {
			return s.ID, nil
		}
	}
	return "", fmt.Errorf("%w: none was held in %s", ErrUnknownConversation, dir)
}

// ExportSession writes a conversation to w, for ImportSession: a tar archive of
// its file, which is in the CLI's own form, and of the long results of tools that
// belong to it. A conversation that goes on meanwhile is exported as far as it has
// come. One that is not there matches ErrUnknownConversation.
func (c *Client) ExportSession(ctx context.Context, id string, w io.Writer) error {
	st, file, err := c.find(ctx, id)
	if err != nil {
		return err
	}
	out := tar.NewWriter(w)
	if err := st.export(out, file, id+".jsonl"); err != nil {
		return err
	}
	dir := strings.TrimSuffix(file, ".jsonl")
	err = fs.WalkDir(st.fs, dir, func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && name == dir {
			return fs.SkipAll // as a rule there is none
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		return st.export(out, name, id+strings.TrimPrefix(name, dir))
	})
	return errors.Join(err, out.Close())
}

// ImportSession puts a conversation of ExportSession into the sandbox, another
// one, on another driver, or days later, and gives its id, with which it can be
// resumed from any directory. One that is there already is not touched: the error
// matches fs.ErrExist. What is not an archive of ExportSession matches
// sandbox.ErrInvalid. The conversation is there whole or not at all.
func (c *Client) ImportSession(ctx context.Context, r io.Reader) (id string, err error) {
	st, err := c.openStore(ctx)
	if err != nil {
		return "", err
	}
	in := tar.NewReader(r)
	first, err := in.Next()
	if err != nil {
		return "", badArchive(err)
	}
	id = idOf(first.Name)
	if !isUUID(id) || first.Name != id+".jsonl" || first.Typeflag != tar.TypeReg {
		return "", badArchive(fmt.Errorf("it begins with %q", first.Name))
	}
	unlock, err := lockConversation(c.sb.ID(), id)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := st.find(id); err == nil {
		return "", fmt.Errorf("claude: the conversation %s: %w", id, fs.ErrExist)
	}
	dir := path.Join(st.projects, projectName(cmp.Or(c.opts.Dir, c.sb.Dir())))
	file := path.Join(dir, id+".jsonl")
	if err := st.unpack(in, dir, id, file+".new"); err != nil {
		clean := st.on(context.WithoutCancel(ctx))
		return "", errors.Join(err, clean.RemoveAll(file+".new"), clean.RemoveAll(path.Join(dir, id)))
	}
	return id, st.fs.Rename(file+".new", file)
}

// DeleteSession removes a conversation from the sandbox. One that is open
// matches ErrSessionInUse, one that is not there ErrUnknownConversation.
func (c *Client) DeleteSession(ctx context.Context, id string) error {
	_, file, err := c.find(ctx, id)
	if err != nil {
		return err
	}
	unlock, err := lockConversation(c.sb.ID(), id)
	if err != nil {
		return err
	}
	defer unlock()
	root := "/" + file
	args := locked(id, "rm", []string{"-rf", "--", root, strings.TrimSuffix(root, ".jsonl")})
	cmd := c.sb.Command(ctx, args[0], args[1:]...)
	cmd.Env = c.opts.Env
	if _, err := cmd.Output(); err != nil {
		var exit *sandbox.ExitError
		if errors.As(err, &exit) {
			err = lockError(err, string(exit.Stderr))
		}
		return fmt.Errorf("claude: delete the conversation %s: %w", id, err)
	}
	return nil
}

func badArchive(err error) error {
	return fmt.Errorf("claude: %w: not an exported conversation: %w", sandbox.ErrInvalid, err)
}

// store is where the CLI keeps conversations in a sandbox: as
// projects/DIRECTORY/ID.jsonl below its configuration. Names are without a
// leading slash.
type store struct {
	sb       *sandbox.Sandbox
	fs       *sandbox.FS
	projects string
}

func (c *Client) openStore(ctx context.Context) (*store, error) {
	cmd := c.sb.Command(ctx, "sh", "-c", `echo "${CLAUDE_CONFIG_DIR:-$HOME/.claude}"`)
	cmd.Env, cmd.Dir = c.opts.Env, c.opts.Dir
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("claude: find where conversations are kept: %w", err)
	}
	config := strings.TrimSuffix(string(out), "\n")
	if !path.IsAbs(config) {
		return nil, fmt.Errorf("claude: %w: CLAUDE_CONFIG_DIR or HOME is %q in the sandbox, not an absolute path", sandbox.ErrInvalid, config)
	}
	st := &store{sb: c.sb, projects: strings.TrimPrefix(path.Join(config, "projects"), "/")}
	st.fs = st.on(ctx)
	return st, nil
}

func (st *store) on(ctx context.Context) *sandbox.FS { return st.sb.FSAt(ctx, "/") }

// find gives the file of a conversation.
func (c *Client) find(ctx context.Context, id string) (*store, string, error) {
	if !isUUID(id) {
		return nil, "", fmt.Errorf("%w: %q is not the id of one", ErrUnknownConversation, id)
	}
	st, err := c.openStore(ctx)
	if err != nil {
		return nil, "", err
	}
	file, err := st.find(id)
	return st, file, err
}

func (st *store) find(id string) (string, error) {
	found := ""
	err := st.each(func(file string, _ fs.FileInfo) error {
		if idOf(file) == id {
			found = file
			return fs.SkipAll
		}
		return nil
	})
	if err == nil && found == "" {
		err = fmt.Errorf("%w: %s", ErrUnknownConversation, id)
	}
	return found, err
}

// each shows the files of all conversations to visit, until that gives fs.SkipAll.
func (st *store) each(visit func(file string, info fs.FileInfo) error) error {
	dirs, err := st.fs.ReadDir(st.projects)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if !dir.IsDir() {
			continue
		}
		files, err := st.fs.ReadDir(path.Join(st.projects, dir.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, entry := range files {
			if !entry.Type().IsRegular() || !isUUID(idOf(entry.Name())) || path.Ext(entry.Name()) != ".jsonl" {
				continue
			}
			info, err := entry.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = visit(path.Join(st.projects, dir.Name(), entry.Name()), info)
			}
			if errors.Is(err, fs.SkipAll) {
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func idOf(file string) string { return strings.TrimSuffix(path.Base(file), ".jsonl") }

// projectName is a directory as the CLI makes a name of it.
func projectName(dir string) string {
	const longest = 200
	name := []byte(dir)
	for i, c := range name {
		if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'z') {
			name[i] = '-'
		}
	}
	return string(name[:min(len(name), longest)])
}

// described is how much of a file's begin and end is read to describe it.
const described = 64 << 10

// describe fills in what a conversation's file says of it.
func (st *store) describe(s *SessionInfo) error {
	f, err := st.fs.Open(s.file)
	if err != nil {
		return err
	}
	defer f.Close()
	start, err := io.ReadAll(io.LimitReader(f, described))
	if err != nil {
		return err
	}
	s.note(start)
	if seeker, ok := f.(io.Seeker); ok && s.Size > int64(len(start)) {
		if _, err := seeker.Seek(max(int64(len(start)), s.Size-described), io.SeekStart); err != nil {
			return err
		}
		end, err := io.ReadAll(io.LimitReader(f, described))
		if err != nil {
			return err
		}
		s.note(end)
	}
	return nil
}

// note takes what lines say of the conversation. Lines that were cut, or are
// something else, say nothing.
func (s *SessionInfo) note(lines []byte) {
	const shown = 200
	for line := range bytes.Lines(lines) {
		if !json.Valid(line) {
			continue
		}
		var l struct {
			Type        string `json:"type"`
			CustomTitle string `json:"customTitle"`
			AITitle     string `json:"aiTitle"`
			Summary     string `json:"summary"`
			Dir         string `json:"cwd"`
			GitBranch   string `json:"gitBranch"`
			Meta        bool   `json:"isMeta"`
			Message     struct {
				Content Content `json:"content"`
			} `json:"message"`
		}
		lenient(line, &l)
		s.Title = cmp.Or(l.CustomTitle, l.AITitle, l.Summary, s.Title)
		s.Dir = cmp.Or(s.Dir, l.Dir)
		s.GitBranch = cmp.Or(l.GitBranch, s.GitBranch)
		if l.Type == typeUser && !l.Meta && s.FirstPrompt == "" {
			text := l.Message.Content.Text()
			s.FirstPrompt = strings.ToValidUTF8(text[:min(len(text), shown)], "")
		}
	}
}

// export writes a file into an archive under a name.
func (st *store) export(out *tar.Writer, file, name string) error {
	f, err := st.fs.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size(), Mode: 0o600, ModTime: info.ModTime(), Format: tar.FormatPAX}
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	// A file that grows is cut, at worst within a line, which the CLI passes over.
	n, err := io.Copy(out, io.LimitReader(f, h.Size))
	if err == nil && n < h.Size {
		err = fmt.Errorf("claude: %s became shorter while it was exported", file)
	}
	return err
}

// unpack puts an archive's files below dir, the first as file.
func (st *store) unpack(in *tar.Reader, dir, id, file string) error {
	if err := st.fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := st.put(in, file); err != nil {
		return err
	}
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return badArchive(err)
		}
		if h.Typeflag != tar.TypeReg || !fs.ValidPath(h.Name) || !strings.HasPrefix(h.Name, id+"/") {
			return badArchive(fmt.Errorf("it has %q", h.Name))
		}
		name := path.Join(dir, h.Name)
		if err := st.fs.MkdirAll(path.Dir(name), 0o700); err != nil {
			return err
		}
		if err := st.put(in, name); err != nil {
			return err
		}
	}
}

func (st *store) put(in *tar.Reader, file string) error {
	f, err := st.fs.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, in)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = badArchive(err)
	}
	return errors.Join(err, f.Close())
}
