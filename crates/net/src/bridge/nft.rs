//! Encodes nftables objects and expressions (include/uapi/linux/netfilter/nf_tables.h). Numbers are big-endian there.

use crate::netlink::Message;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;

/// Address family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableFamily {
    Inet = 1,
    Bridge = 7,
}

/// A table by family and name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a> {
    pub(super) family: TableFamily,
    pub(super) name: &'a str,
}

/// Where a base chain is hooked in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hook {
    /// `filter` or `nat`.
    pub(super) kind: &'static str,
    /// NF_INET_PRE_ROUTING 0, LOCAL_IN 1, FORWARD 2, LOCAL_OUT 3, POST_ROUTING 4; the same in family bridge.
    pub(super) number: u32,
    pub(super) priority: i32,
}

/// What a set holds. Types are for `nft list` only; the kernel looks at the lengths.
#[derive(Clone, Copy, Debug)]
pub(super) struct SetShape {
    pub(super) name: &'static str,
    pub(super) key: &'static [Field],
    /// Not empty: the set is a map.
    pub(super) data: &'static [Field],
}

/// A part of a key. Each starts at a 4-byte register.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    Ip4,
    Ip6,
    Mac,
    Protocol,
    Port,
    Interface,
}

impl Field {
    /// nft's number of the type, and the length in registers times 4.
    fn shape(self) -> (u32, u32) {
        match self {
            Self::Ip4 => (7, 4),
            Self::Ip6 => (8, 16),
            Self::Mac => (9, 8),
            Self::Protocol => (12, 4),
            Self::Port => (13, 4),
            Self::Interface => (41, 16),
        }
    }

    fn all(fields: &[Self]) -> (u32, u32) {
        fields.iter().fold((0, 0), |(kind, length), field| {
            let (k, l) = field.shape();
            (kind << 6 | k, length + l)
        })
    }
}

/// An element of a set: key, and data if it is a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) set: &'static str,
    pub(super) key: Vec<u8>,
    pub(super) data: Vec<u8>,
}

fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// The message that opens a transaction.
pub(super) fn batch_begin() -> Message {
    Message::new(NFNL_MSG_BATCH_BEGIN, 0, &header(0, NFNL_SUBSYS_NFTABLES))
}

/// The message that commits it.
pub(super) fn batch_end() -> Message {
    Message::new(NFNL_MSG_BATCH_END, 0, &header(0, NFNL_SUBSYS_NFTABLES))
}

impl Table<'_> {
    fn message(&self, kind: u16, flags: u16) -> Message {
        let mut message = Message::new(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, &header(self.family as u8, 0));
        message.put_text(1, self.name);
        message
    }

    /// Asks whether it exists.
    pub(super) fn get(&self) -> Message {
        self.message(NFT_MSG_GETTABLE, 0)
    }

    /// Removes it with everything in it.
    pub(super) fn delete(&self) -> Message {
        self.message(NFT_MSG_DELTABLE, 0)
    }

    /// Creates it.
    pub(super) fn create(&self, flags: u32) -> Message {
        let mut message = self.message(NFT_MSG_NEWTABLE, NLM_F_CREATE);
        message.put_be32(2, flags);
        message
    }

    /// Creates a chain; a base chain, policy accept, if it has a hook.
    pub(super) fn chain(&self, name: &str, hook: Option<Hook>) -> Message {
        let mut message = self.message(NFT_MSG_NEWCHAIN, NLM_F_CREATE);
        message.put_text(3, name);
        if let Some(hook) = hook {
            message.nest(4, |m| {
                m.put_be32(1, hook.number).put(2, &hook.priority.to_be_bytes());
            });
            message.put_be32(5, NF_ACCEPT).put_text(7, hook.kind);
        }
        message
    }

    /// Appends a rule.
    pub(super) fn rule(&self, chain: &str, fill: impl FnOnce(&mut Expressions<'_>)) -> Message {
        let mut message = self.message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
        message.put_text(2, chain).nest(4, |m| fill(&mut Expressions(m)));
        message
    }

    /// Creates a set or map. `id` tells sets of one transaction apart.
    pub(super) fn set(&self, shape: &SetShape, id: u32) -> Message {
        const NFT_SET_MAP: u32 = 8;
        let ((key_type, key_length), (data_type, data_length)) = (Field::all(shape.key), Field::all(shape.data));
        let mut message = self.message(NFT_MSG_NEWSET, NLM_F_CREATE);
        message.put_text(2, shape.name).put_be32(3, if shape.data.is_empty() { 0 } else { NFT_SET_MAP });
        message.put_be32(4, key_type).put_be32(5, key_length);
        if !shape.data.is_empty() {
            message.put_be32(6, data_type).put_be32(7, data_length);
        }
        message.put_be32(10, id);
        message
    }

    /// Adds elements, all of one set.
    pub(super) fn add(&self, set: &str, elements: &[&Element]) -> Message {
        self.elements(NFT_MSG_NEWSETELEM, NLM_F_CREATE, set, elements)
    }

    /// Removes elements, all of one set. Fails (ENOENT) if one is not there.
    pub(super) fn remove(&self, set: &str, elements: &[&Element]) -> Message {
        self.elements(NFT_MSG_DELSETELEM, 0, set, elements)
    }

    fn elements(&self, kind: u16, flags: u16, set: &str, elements: &[&Element]) -> Message {
        let mut message = self.message(kind, flags);
        message.put_text(2, set).nest(3, |list| {
            for element in elements {
                list.nest(NFTA_LIST_ELEM, |e| {
                    e.nest(1, |d| {
                        d.put(NFTA_DATA_VALUE, &element.key);
                    });
                    if !element.data.is_empty() {
                        e.nest(2, |d| {
                            d.put(NFTA_DATA_VALUE, &element.data);
                        });
                    }
                });
            }
        });
        message
    }
}

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
/// -3 in two's complement.
const NFT_JUMP: u32 = u32::MAX - 2;

/// One of the sixteen 4-byte registers of a rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Register(pub(super) u32);

impl Register {
    fn number(self) -> u32 {
        const NFT_REG32_00: u32 = 8;
        NFT_REG32_00 + self.0
    }
}

/// What `meta` can load (enum nft_meta_keys).
#[derive(Clone, Copy, Debug)]
pub(super) enum Meta {
    /// EtherType, 2 bytes, network order.
    EtherType = 1,
    /// Name of the interface it came in by, 16 bytes.
    InName = 6,
    /// Name of the interface it leaves by.
    OutName = 7,
    /// NFPROTO_IPV4 2 or NFPROTO_IPV6 10, one byte.
    NfProto = 15,
    /// Transport protocol, one byte.
    L4Proto = 16,
}

/// Where a payload's offset counts from (enum nft_payload_bases).
#[derive(Clone, Copy, Debug)]
pub(super) enum Base {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// Equal or not (enum nft_cmp_ops).
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    Eq = 0,
    Ne = 1,
}

/// In the set or not.
#[derive(Clone, Copy, Debug)]
pub(super) enum Member {
    Yes = 0,
    No = 1,
}

/// The expressions of a rule, in order. One that does not match ends the rule.
pub(super) struct Expressions<'a>(&'a mut Message);

impl Expressions<'_> {
    fn push(&mut self, name: &str, fill: impl FnOnce(&mut Message)) -> &mut Self {
        self.0.nest(NFTA_LIST_ELEM, |m| {
            m.put_text(1, name).nest(2, fill);
        });
        self
    }

    pub(super) fn meta(&mut self, key: Meta, to: Register) -> &mut Self {
        self.push("meta", |m| {
            m.put_be32(2, key as u32).put_be32(1, to.number());
        })
    }

    pub(super) fn payload(&mut self, base: Base, offset: u32, length: u32, to: Register) -> &mut Self {
        self.push("payload", |m| {
            m.put_be32(1, to.number()).put_be32(2, base as u32).put_be32(3, offset).put_be32(4, length);
        })
    }

    pub(super) fn cmp(&mut self, register: Register, op: Op, value: &[u8]) -> &mut Self {
        self.push("cmp", |m| {
            m.put_be32(1, register.number()).put_be32(2, op as u32).nest(3, |d| {
                d.put(NFTA_DATA_VALUE, value);
            });
        })
    }

    /// `register &= mask`.
    pub(super) fn mask(&mut self, register: Register, mask: &[u8]) -> &mut Self {
        let length = u32::try_from(mask.len()).expect("a mask fits into the registers");
        self.push("bitwise", |m| {
            m.put_be32(1, register.number()).put_be32(2, register.number()).put_be32(3, length);
            for (attribute, value) in [(4, mask), (5, &vec![0; mask.len()])] {
                m.nest(attribute, |d| {
                    d.put(NFTA_DATA_VALUE, value);
                });
            }
        })
    }

    pub(super) fn lookup(&mut self, register: Register, member: Member, set: &str) -> &mut Self {
        self.push("lookup", |m| {
            m.put_text(1, set).put_be32(2, register.number()).put_be32(5, member as u32);
        })
    }

    /// Looks a key up and loads what it maps to.
    pub(super) fn map(&mut self, register: Register, map: &str, to: Register) -> &mut Self {
        self.push("lookup", |m| {
            m.put_text(1, map).put_be32(2, register.number()).put_be32(3, to.number());
        })
    }

    /// Matches if the destination is an address of this machine.
    pub(super) fn local_destination(&mut self) -> &mut Self {
        const RTN_LOCAL: u32 = 2;
        const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
        const NFTA_FIB_F_DADDR: u32 = 2;
        self.push("fib", |m| {
            m.put_be32(1, Register(0).number()).put_be32(2, NFT_FIB_RESULT_ADDRTYPE).put_be32(3, NFTA_FIB_F_DADDR);
        })
        .cmp(Register(0), Op::Eq, &RTN_LOCAL.to_ne_bytes())
    }

    /// Matches if the connection's destination was translated.
    pub(super) fn was_dnatted(&mut self) -> &mut Self {
        const NFT_CT_STATUS: u32 = 2;
        const IPS_DST_NAT: u32 = 1 << 5;
        self.push("ct", |m| {
            m.put_be32(2, NFT_CT_STATUS).put_be32(1, Register(0).number());
        })
        .mask(Register(0), &IPS_DST_NAT.to_ne_bytes())
        .cmp(Register(0), Op::Ne, &[0; 4])
    }

    /// Translates the destination to address and port in these registers.
    pub(super) fn dnat(&mut self, nf_family: u8, address: Register, port: Register) -> &mut Self {
        const NFT_NAT_DNAT: u32 = 1;
        self.push("nat", |m| {
            m.put_be32(1, NFT_NAT_DNAT).put_be32(2, u32::from(nf_family));
            m.put_be32(3, address.number()).put_be32(5, port.number());
        })
    }

    pub(super) fn masquerade(&mut self) -> &mut Self {
        self.push("masq", |_| ())
    }

    fn verdict(&mut self, code: u32, chain: Option<&str>) -> &mut Self {
        self.push("immediate", |m| {
            m.put_be32(1, 0).nest(2, |d| {
                d.nest(2, |v| {
                    v.put_be32(1, code);
                    if let Some(chain) = chain {
                        v.put_text(2, chain);
                    }
                });
            });
        })
    }

    pub(super) fn drop(&mut self) -> &mut Self {
        self.verdict(NF_DROP, None)
    }

    pub(super) fn accept(&mut self) -> &mut Self {
        self.verdict(NF_ACCEPT, None)
    }

    pub(super) fn jump(&mut self, chain: &str) -> &mut Self {
        self.verdict(NFT_JUMP, Some(chain))
    }
}
