//go:build linux

package probe

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const patience = 700 * time.Millisecond // for an answer that should not come

func socketProbes() []Probe {
	list := []Probe{
		{Name: "host's loopback listener", run: func(f *Facts) (string, bool) { return dials("tcp", f.TCP) }},
		{Name: "ports nobody may listen on", run: func(f *Facts) (string, bool) { return dials("tcp", f.Closed...) }},
		{Name: "host's name server", run: nameServer},
		{Name: "route to the metadata address", run: func(*Facts) (string, bool) { return routes("169.254.169.254:80") }},
		{Name: "route to the internet", run: func(*Facts) (string, bool) {
			return routes("1.1.1.1:53", "10.0.0.1:80", "192.168.0.1:80", "[2606:4700::1111]:53")
		}},
		{Name: "network interfaces", run: interfaces},
		{Name: "host's sockets listed", run: socketTables},
		{Name: "abstract unix socket", run: abstractSocket},
		{Name: "unix socket by path", run: pathSocket},
	}
	for _, k := range []struct {
		name                   string
		family, kind, protocol int
	}{
		{"raw socket", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP},
		{"raw IPv6 socket", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6},
		{"packet socket", unix.AF_PACKET, unix.SOCK_RAW, 0},
		{"packet datagram socket", unix.AF_PACKET, unix.SOCK_DGRAM, 0},
		{"vsock socket", unix.AF_VSOCK, unix.SOCK_STREAM, 0},
		{"kernel crypto socket", unix.AF_ALG, unix.SOCK_SEQPACKET, 0},
		{"bluetooth socket", unix.AF_BLUETOOTH, unix.SOCK_RAW, 1},
		{"netlink netfilter", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER},
		{"netlink uevent", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT},
		{"netlink audit", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT},
		{"netlink connector", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_CONNECTOR},
		{"netlink xfrm", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM},
		{"netlink generic", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC},
	} {
		list = append(list, Probe{Name: k.name, run: func(*Facts) (string, bool) { return socket(k.family, k.kind, k.protocol) }})
	}
	return append(list, Probe{Name: "other socket families", run: otherFamilies})
}

func dials(network string, addresses ...string) (string, bool) {
	text := skipped
	for _, a := range addresses {
		if a == "" {
			continue
		}
		c, err := net.DialTimeout(network, a, patience)
		if err == nil {
			c.Close()
			return got("connected to %s", a)
		}
		text = err.Error()
	}
	return held("%s", text)
}

// routes asks the kernel for a way to an address; nothing is sent.
func routes(addresses ...string) (string, bool) {
	text := ""
	for _, a := range addresses {
		c, err := net.Dial("udp", a)
		if err == nil {
			defer c.Close()
			return got("to %s, from %s", a, c.LocalAddr())
		}
		text = err.Error()
	}
	return held("%s", text)
}

// nameServer asks the host's loopback name server for the root's servers.
func nameServer(f *Facts) (string, bool) {
	if f.DNS == "" {
		return skip()
	}
	c, err := net.Dial("udp", f.DNS)
	if err != nil {
		return held("%v", err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return held("%v", err)
	}
	if _, err := c.Write([]byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01")); err != nil {
		return held("%v", err)
	}
	n, err := c.Read(make([]byte, 512))
	if err != nil {
		return held("%v", err)
	}
	return got("%d bytes of answer", n)
}

func interfaces(*Facts) (string, bool) {
	b, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		return held("%v", err)
	}
	for line := range strings.Lines(string(b)) {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && name != "lo" && name != "sit0" && name != "ip6tnl0" && name != "tunl0" {
			return got("%s is there", name)
		}
	}
	return held("loopback only")
}

// socketTables looks for the host's listener among the sockets that the
// kernel lists.
func socketTables(f *Facts) (string, bool) {
	a, err := net.ResolveTCPAddr("tcp", f.TCP)
	if f.TCP == "" || err != nil {
		return skip()
	}
	file, err := os.Open("/proc/net/tcp")
	if err != nil {
		return held("%v", err)
	}
	defer file.Close()
	for s := bufio.NewScanner(file); s.Scan(); {
		if strings.Contains(s.Text(), fmt.Sprintf("0100007F:%04X 00000000:0000 0A", a.Port)) {
			return got("the listener is listed")
		}
	}
	return held("the listener is not listed")
}

func abstractSocket(f *Facts) (string, bool) {
	if f.Abstract == "" {
		return skip()
	}
	return dials("unix", "@"+f.Abstract)
}

func pathSocket(f *Facts) (string, bool) {
	if f.UnixPath == "" {
		return skip()
	}
	return dials("unix", f.UnixPath, "/proc/1/root"+f.UnixPath)
}

func socket(family, kind, protocol int) (string, bool) {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err == nil {
		unix.Close(fd)
	}
	return judge(err)
}

// otherFamilies: every family but unix, the two of IP, and netlink.
func otherFamilies(*Facts) (string, bool) {
	text := ""
	for family := 1; family < 64; family++ {
		switch family {
		case unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK:
			continue
		}
		for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_RAW, unix.SOCK_SEQPACKET} {
			detail, through := socket(family, kind, 0)
			if through {
				return got("family %d, kind %d", family, kind)
			}
			text = detail
		}
	}
	return held("%s", text)
}
