package selftest

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The barrier is a table of the packet filter beside that of package nft, in which nothing comes in or goes out but by loopback: the
// program's own, and what goes through its proxy. It is brought in and taken away from outside the namespace, by a socket that was
// made inside.
const (
	barrier  = "tulle-closed"
	inet     = 1 // NFPROTO_INET
	first    = -400
	loopback = 1 // the index of that interface in every namespace
)

// Close puts the barrier up, all of it or nothing. Where it stands already nothing changes.
func (s *Sockets) Close() error {
	ask := s.rules(unix.NFT_MSG_GETTABLE, unix.NLM_F_ACK, attribute(unix.NFTA_TABLE_NAME, text(barrier)))
	switch _, err := s.request(s.Rules, ask.kind, ask.flags, ask.body); {
	case err == nil:
		return nil
	case !errors.Is(err, unix.ENOENT):
		return fmt.Errorf("barrier: %w", err)
	}
	batch := []message{s.rules(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, attribute(unix.NFTA_TABLE_NAME, text(barrier)))}
	for _, c := range []struct {
		name string
		hook uint32
		key  uint32 // which interface
	}{{"in", unix.NF_INET_LOCAL_IN, unix.NFT_META_IIF}, {"out", unix.NF_INET_LOCAL_OUT, unix.NFT_META_OIF}} {
		at := concat(attribute(unix.NFTA_HOOK_HOOKNUM, number(c.hook)), attribute(unix.NFTA_HOOK_PRIORITY, number(uint32(0xffffffff+first+1))))
		batch = append(batch, s.rules(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, concat(attribute(unix.NFTA_CHAIN_TABLE, text(barrier)),
			attribute(unix.NFTA_CHAIN_NAME, text(c.name)), nested(unix.NFTA_CHAIN_HOOK, at), attribute(unix.NFTA_CHAIN_POLICY, number(0)), // drop
			attribute(unix.NFTA_CHAIN_TYPE, text("filter")))))
		load := expression("meta", attribute(unix.NFTA_META_DREG, number(unix.NFT_REG_1)), attribute(unix.NFTA_META_KEY, number(c.key)))
		index := binary.NativeEndian.AppendUint32(nil, loopback)
		same := expression("cmp", attribute(unix.NFTA_CMP_SREG, number(unix.NFT_REG_1)), attribute(unix.NFTA_CMP_OP, number(unix.NFT_CMP_EQ)),
			nested(unix.NFTA_CMP_DATA, attribute(unix.NFTA_DATA_VALUE, index)))
		accept := expression("immediate", attribute(unix.NFTA_IMMEDIATE_DREG, number(unix.NFT_REG_VERDICT)),
			nested(unix.NFTA_IMMEDIATE_DATA, nested(unix.NFTA_DATA_VERDICT, attribute(unix.NFTA_VERDICT_CODE, number(1))))) // NF_ACCEPT
		batch = append(batch, s.rules(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, concat(attribute(unix.NFTA_RULE_TABLE, text(barrier)),
			attribute(unix.NFTA_RULE_CHAIN, text(c.name)), nested(unix.NFTA_RULE_EXPRESSIONS, concat(load, same, accept)))))
	}
	if err := s.batch(batch); err != nil {
		return fmt.Errorf("barrier: %w", err)
	}
	return nil
}

// Open takes the barrier away. Where there is none nothing changes.
func (s *Sockets) Open() error {
	err := s.batch([]message{s.rules(unix.NFT_MSG_DELTABLE, 0, attribute(unix.NFTA_TABLE_NAME, text(barrier)))})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("barrier: %w", err)
	}
	return nil
}

// message is one to the kernel, without its header.
type message struct {
	kind, flags uint16
	body        []byte
}

// rules makes a message of the packet filter.
func (s *Sockets) rules(kind, flags uint16, body []byte) message {
	return message{unix.NFNL_SUBSYS_NFTABLES<<8 | kind, unix.NLM_F_REQUEST | flags, append([]byte{inet, unix.NFNETLINK_V0, 0, 0}, body...)}
}

// batch sends messages that count together or not at all.
func (s *Sockets) batch(list []message) error {
	edge := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES} // the subsystem is big-endian
	list[len(list)-1].flags |= unix.NLM_F_ACK
	all := append([]message{{unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, edge}}, list...)
	_, err := s.ask(s.Rules, append(all, message{unix.NFNL_MSG_BATCH_END, unix.NLM_F_REQUEST, edge}))
	return err
}

// attribute writes one of netlink's (type, length, value).
func attribute(kind uint16, value []byte) []byte {
	a := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofNlAttr+len(value)))
	a = append(binary.NativeEndian.AppendUint16(a, kind), value...)
	for len(a)%unix.NLA_ALIGNTO != 0 {
		a = append(a, 0)
	}
	return a
}

func nested(kind uint16, list []byte) []byte { return attribute(kind|unix.NLA_F_NESTED, list) }

// expression is one instruction of a rule.
func expression(name string, args ...[]byte) []byte {
	return nested(unix.NFTA_LIST_ELEM, concat(attribute(unix.NFTA_EXPR_NAME, text(name)), nested(unix.NFTA_EXPR_DATA, concat(args...))))
}

func concat(parts ...[]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func text(s string) []byte { return append([]byte(s), 0) }

// number is one as the packet filter writes them.
func number(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
