package selftest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
)

const probePort = bootstrap.ProbePort

// link is an interface of the namespace.
type link struct {
	index int32
	name  string
}

// foreign finds out whether there is an interface beside loopback, by which the program could be reached, or reach others, round
// the proxy. One that is down leads nowhere; kernels make such ones in every namespace.
func (s *Sockets) foreign() error {
	list, err := s.up()
	if err != nil {
		return fmt.Errorf("the interfaces of the program's network are not known: %w", err)
	}
	var names []string
	for _, l := range list {
		names = append(names, l.name)
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("there is a way round the proxy, interface %s in the program's network", strings.Join(names, ", "))
}

// up answers the interfaces beside loopback that are up.
func (s *Sockets) up() (out []link, err error) {
	all, err := s.request(s.Links, unix.RTM_GETLINK, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, make([]byte, unix.SizeofIfInfomsg))
	if err != nil {
		return nil, err
	}
	for i := range all {
		m := &all[i]
		if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg {
			continue
		}
		flags := binary.NativeEndian.Uint32(m.Data[8:])
		if flags&unix.IFF_UP == 0 || flags&unix.IFF_LOOPBACK != 0 {
			continue
		}
		l := link{index: int32(binary.NativeEndian.Uint32(m.Data[4:])), name: "?"}
		attrs, err := syscall.ParseNetlinkRouteAttr(m)
		if err != nil {
			return nil, err
		}
		for _, a := range attrs {
			if a.Attr.Type == unix.IFLA_IFNAME {
				l.name = strings.TrimRight(string(a.Value), "\x00")
			}
		}
		out = append(out, l)
	}
	return out, nil
}

// Bounds of one question to the kernel.
const (
	mostAnswers = 4096
	answerSize  = 32 << 10
)

// request asks the kernel by a socket, and answers what it says up to its end.
func (s *Sockets) request(fd int, kind, flags uint16, body []byte) ([]syscall.NetlinkMessage, error) {
	return s.ask(fd, []message{{kind, flags, body}})
}

// ask sends messages together. It answers what comes back up to an end, an acknowledgement or an error.
func (s *Sockets) ask(fd int, list []message) (out []syscall.NetlinkMessage, err error) {
	number := uint32(time.Now().UnixNano())
	var m []byte
	for i := range list {
		l := &list[i]
		m = binary.NativeEndian.AppendUint32(m, uint32(unix.SizeofNlMsghdr+len(l.body)))
		m = binary.NativeEndian.AppendUint16(m, l.kind)
		m = binary.NativeEndian.AppendUint16(m, l.flags)
		m = binary.NativeEndian.AppendUint32(m, number)
		m = append(binary.NativeEndian.AppendUint32(m, 0), l.body...) // the kernel knows whose the socket is
	}
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	c := check{end: time.Now().Add(patience)}
	for p := make([]byte, answerSize); len(out) < mostAnswers; {
		if err := c.await(fd, unix.POLLIN); err != nil {
			return nil, err
		}
		n, _, err := unix.Recvfrom(fd, p, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list, err := syscall.ParseNetlinkMessage(append([]byte(nil), p[:n]...))
		if err != nil {
			return nil, err
		}
		for i := range list {
			switch l := &list[i]; {
			case l.Header.Seq != number: // an answer to an earlier question
			case l.Header.Type == unix.NLMSG_DONE:
				return out, nil
			case l.Header.Type == unix.NLMSG_ERROR:
				if len(l.Data) >= 4 {
					if e := -int32(binary.NativeEndian.Uint32(l.Data)); e != 0 {
						return nil, unix.Errno(e)
					}
				}
				return out, nil
			default:
				out = append(out, *l)
			}
		}
	}
	return nil, fmt.Errorf("more than %d answers", mostAnswers)
}
