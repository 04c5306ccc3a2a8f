package fstools

import (
	"bufio"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// namesLimit bounds what is read of a sandbox's list of users or groups.
const namesLimit = 1 << 20

// names are those of users and groups in a sandbox, read when first needed.
type names struct {
	t             *tool
	users, groups map[int]string
}

func (t *tool) names() *names { return &names{t: t} }

func (n *names) user(id int) string  { return n.name(&n.users, "/etc/passwd", id) }
func (n *names) group(id int) string { return n.name(&n.groups, "/etc/group", id) }

// name is the number itself where the sandbox has no name for it.
func (n *names) name(known *map[int]string, file string, id int) string {
	if *known == nil {
		*known = n.t.readNames(file)
	}
	if name, ok := (*known)[id]; ok {
		return name
	}
	return strconv.Itoa(id)
}

// readNames reads lines of NAME:PASSWORD:NUMBER:… (passwd(5), group(5)). An image
// without the file has no names.
func (t *tool) readNames(file string) map[int]string {
	byID := map[int]string{}
	f, err := t.fsys.OpenFile(t.ctx, file, os.O_RDONLY, 0)
	if err != nil {
		return byID
	}
	defer f.Close()
	for lines := bufio.NewScanner(io.LimitReader(f, namesLimit)); lines.Scan(); {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) < 3 {
			continue
		}
		id, err := strconv.Atoi(fields[2])
		if _, known := byID[id]; err == nil && !known {
			byID[id] = fields[0]
		}
	}
	return byID
}

// owned is a description that says whose the file is, inside the sandbox.
type owned interface{ Owner() (uid, gid int) }

// ownerOf is 0, 0 where the driver does not say.
func ownerOf(info fs.FileInfo) (uid, gid int) {
	if o, ok := info.(owned); ok {
		return o.Owner()
	}
	return 0, 0
}
