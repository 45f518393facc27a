package nft

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// reject codes of the kernel's nft_reject, family inet.
const (
	rejectTCPReset   = 1
	rejectICMPX      = 2
	icmpxPortUnreach = 1
)

// Apply brings the rules into the network namespace of the calling thread, all at once or not at all.
func Apply(r Rules) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	t := c.AddTable(&nftables.Table{Name: Table, Family: nftables.TableFamilyINet})
	add := func(name string, typ nftables.ChainType, prio *nftables.ChainPriority, rules []Rule) {
		ch := c.AddChain(&nftables.Chain{Name: name, Table: t, Type: typ, Hooknum: nftables.ChainHookOutput, Priority: prio})
		for _, rule := range rules {
			c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: rule.exprs()})
		}
	}
	add("turn", nftables.ChainTypeNAT, nftables.ChainPriorityNATDest, r.NAT)
	add("pass", nftables.ChainTypeFilter, nftables.ChainPriorityFilter, r.Filter)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

// exprs translates a rule into the kernel's register machine.
func (r Rule) exprs() []expr.Any {
	var e []expr.Any
	equal := func(load expr.Any, data []byte) {
		e = append(e, load, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data})
	}
	if r.Marked {
		equal(&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, binaryutil.NativeEndian.PutUint32(Mark))
	}
	if r.Established {
		e = append(e,
			&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED),
				Xor:  make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)})
	}
	if r.Dst.IsValid() {
		e = append(e, r.destination()...)
	}
	if r.Proto != 0 {
		equal(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, []byte{r.Proto})
	}
	if r.Port != 0 {
		equal(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, binaryutil.BigEndian.PutUint16(r.Port))
	}
	switch r.Action {
	case Accept:
		e = append(e, &expr.Verdict{Kind: expr.VerdictAccept})
	case Redirect:
		e = append(e, &expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(r.To)}, &expr.Redir{RegisterProtoMin: 1})
	case Reject:
		e = append(e, &expr.Reject{Type: rejectICMPX, Code: icmpxPortUnreach})
	case Reset:
		e = append(e, &expr.Reject{Type: rejectTCPReset})
	}
	return e
}

// destination matches the family, then the address under the prefix's mask.
func (r Rule) destination() []expr.Any {
	family, offset := byte(unix.NFPROTO_IPV4), uint32(16)
	if r.Dst.Addr().Is6() {
		family, offset = unix.NFPROTO_IPV6, 24
	}
	e := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
	}
	if r.Dst.Bits() == 0 {
		return e
	}
	addr := r.Dst.Masked().Addr().AsSlice()
	mask := make([]byte, len(addr))
	for i := range r.Dst.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	n := uint32(len(addr))
	return append(e,
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: n},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: n, Mask: mask, Xor: make([]byte, n)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: addr})
}
