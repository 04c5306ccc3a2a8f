//go:build unix

package helper

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// identity is who commands run as.
type identity struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

func (id *identity) credential() *syscall.Credential {
	return &syscall.Credential{Uid: id.uid, Gid: id.gid, Groups: id.groups}
}

// account is a line of passwd(5) or group(5).
type account struct {
	name    string
	id, gid uint32
	home    string
	members []string
}

// maxAccounts bounds what is read of such a file.
const maxAccounts = 1 << 20

// findUser finds out who commands run as; without a word in the image it is root.
func (b *box) findUser() (*identity, error) {
	passwd, err := b.readSmall("/etc/passwd")
	if err != nil {
		return nil, err
	}
	group, err := b.readSmall("/etc/group")
	if err != nil {
		return nil, err
	}
	id, err := lookupUser(b.boot.User, passwd, group)
	if err != nil {
		return nil, err
	}
	if n := mappedUsers(); uint64(id.uid) >= n || uint64(id.gid) >= n {
		return nil, &driver.UnsupportedError{Setting: "Image", Reason: "its commands run as user " + b.boot.User +
			`, and there is none but root here: run this program as root, or add "USER root" to Image.Commands`}
	}
	return id, nil
}

// readSmall reads a regular file of the sandbox, and nothing where there is none.
func (b *box) readSmall(name string) (string, error) {
	f, err := b.tree.open(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", nil // an image without users is one with numbers only
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxAccounts))
	return string(text), err
}

// lookupUser reads spec as Docker does: a user and, after a colon, a group, each
// by name or number. The empty one is root.
func lookupUser(spec, passwd, group string) (*identity, error) {
	user, named, hasGroup := strings.Cut(spec, ":")
	if user == "" {
		user = "0"
	}
	acc, found := findAccount(passwd, user, 7)
	id := &identity{uid: acc.id, gid: acc.gid, home: acc.home}
	if !found {
		n, ok := number(user)
		if !ok {
			return nil, fmt.Errorf("user %q is not in the image's /etc/passwd: %w", user, driver.ErrInvalid)
		}
		id.uid = n
	}
	if id.home == "" {
		id.home = "/"
		if id.uid == 0 {
			id.home = "/root"
		}
	}
	if hasGroup && named != "" {
		g, found := findAccount(group, named, 4)
		if !found {
			n, ok := number(named)
			if !ok {
				return nil, fmt.Errorf("group %q is not in the image's /etc/group: %w", named, driver.ErrInvalid)
			}
			g.id = n
		}
		id.gid, id.groups = g.id, nil
		return id, nil
	}
	if found {
		id.groups = groupsOf(group, acc.name)
	}
	return id, nil
}

func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return uint32(n), err == nil
}

// accounts calls do with every well-formed line, until it returns false.
func accounts(text string, fields int, do func(*account) bool) {
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(f) < fields || f[0] == "" {
			continue
		}
		id, ok := number(f[2])
		if !ok {
			continue
		}
		acc := &account{name: f[0], id: id}
		if fields == 7 {
			acc.gid, _ = number(f[3])
			acc.home = f[5]
		} else {
			acc.members = strings.Split(f[3], ",")
		}
		if !do(acc) {
			return
		}
	}
}

// findAccount finds the line of a name or, where no name is like that, a number.
func findAccount(text, key string, fields int) (acc account, found bool) {
	n, isNumber := number(key)
	accounts(text, fields, func(a *account) bool {
		if a.name == key {
			acc, found = *a, true
			return false
		}
		if isNumber && a.id == n && !found {
			acc, found = *a, true
		}
		return true
	})
	return acc, found
}

// groupsOf are the groups that name is a member of.
func groupsOf(group, name string) (groups []uint32) {
	accounts(group, 4, func(a *account) bool {
		if slices.Contains(a.members, name) && len(groups) < 64 {
			groups = append(groups, a.id)
		}
		return true
	})
	return groups
}
