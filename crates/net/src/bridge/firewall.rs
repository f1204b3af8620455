//! Brings the rules into the kernel and keeps them there.

use rustix::io::Errno;

use super::{
    Plug,
    nft::{self, Element, Table},
    rules::{self, Layout},
};
use crate::{
    Error, NetlinkError,
    netlink::{Family, Message, Socket},
};

const NFT_TABLE_F_OWNER: u32 = 2;
const NFT_TABLE_F_PERSIST: u32 = 4;
/// Elements in one message, far from the 64 KiB that an attribute can hold.
const ELEMENTS_PER_MESSAGE: usize = 200;
/// A packet has to fit into the socket's send buffer (net.core.wmem_default, 212992 as a rule).
const PACKET: usize = 128 * 1024;

/// How the tables are protected against `nft flush ruleset` of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ownership {
    /// Only this socket may change them, and they stay when it is closed (Linux 6.9, 31bf508be656).
    Owned,
    /// The kernel is older; they are put back when they are missing.
    Shared,
}

/// The tables of one daemon.
#[derive(Debug)]
pub(super) struct Firewall {
    socket: Socket,
    ownership: Ownership,
}

fn failed(action: String) -> impl FnOnce(NetlinkError) -> Error {
    move |source| Error::Netlink { action, source }
}

impl Firewall {
    /// For the network namespace of the calling thread.
    pub(super) fn open() -> Result<Self, Error> {
        let socket = Socket::open(Family::Netfilter).map_err(failed("open nfnetlink socket".into()))?;
        Ok(Self { socket, ownership: Ownership::Owned })
    }

    /// Whether all tables are there.
    pub(super) fn is_present(&mut self, layout: &Layout<'_>) -> Result<bool, Error> {
        for table in layout.tables() {
            if !self.has(&table)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn has(&mut self, table: &Table<'_>) -> Result<bool, Error> {
        match self.socket.query(&table.get()) {
            Ok(_) => Ok(true),
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(false),
            Err(error) => Err(failed(format!("look for nftables table {}", table.name))(error)),
        }
    }

    /// Replaces all rules by those for these pods, at once: no packet sees a half of them. (With more than about a
    /// thousand pods, the last ones' elements follow in further steps.)
    pub(super) fn rebuild<'a>(&mut self, layout: &Layout<'_>, plugs: impl Iterator<Item = &'a Plug>) -> Result<(), Error> {
        let plugs: Vec<&Plug> = plugs.collect();
        let both = [layout.inet(), layout.bridge_table()];
        let mut stale = Vec::new();
        for table in &both {
            if self.has(table)? {
                stale.push(table.delete());
            }
        }
        let mut elements = element_messages(layout, &plugs, Table::add);
        let first_length = elements
            .iter()
            .scan(0, |sum, message| {
                *sum += message.len();
                Some(*sum)
            })
            .take_while(|sum| *sum < PACKET)
            .count();
        let rest = elements.split_off(first_length);
        loop {
            let flags = match self.ownership {
                Ownership::Owned => NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST,
                Ownership::Shared => 0,
            };
            let mut batch = stale.clone();
            batch.extend(layout.tables().iter().map(|table| table.create(flags)));
            let creates = stale.len()..batch.len();
            batch.extend(layout.static_rules());
            batch.extend_from_slice(&elements);
            match self.commit(&batch) {
                Ok(()) => break,
                Err((index, error))
                    if self.ownership == Ownership::Owned
                        && creates.contains(&index)
                        && matches!(error.errno(), Some(Errno::OPNOTSUPP | Errno::INVAL)) =>
                {
                    self.ownership = Ownership::Shared;
                }
                Err((_, error)) => return Err(failed(format!("create nftables tables {}", layout.table))(error)),
            }
        }
        for messages in rest.chunks(8) {
            self.commit(messages).map_err(|(_, e)| failed(format!("fill nftables tables {}", layout.table))(e))?;
        }
        Ok(())
    }

    /// Removes the tables with everything in them; not there is fine.
    pub(super) fn remove_tables(&mut self, layout: &Layout<'_>) -> Result<(), Error> {
        let mut stale = Vec::new();
        for table in [layout.inet(), layout.bridge_table()] {
            if self.has(&table)? {
                stale.push(table.delete());
            }
        }
        if stale.is_empty() {
            return Ok(());
        }
        self.commit(&stale).map_err(|(_, error)| failed(format!("remove nftables tables {}", layout.table))(error))
    }

    fn commit(&mut self, body: &[Message]) -> Result<(), (usize, NetlinkError)> {
        self.socket.commit(nft::batch_begin(), body, nft::batch_end())
    }

    /// Lets a pod send, and opens its host ports. `Ok(false)`: the tables are not as they should be.
    pub(super) fn add(&mut self, layout: &Layout<'_>, plug: &Plug) -> Result<bool, Error> {
        self.change(&element_messages(layout, &[plug], Table::add), layout, plug)
    }

    /// Takes that back. `Ok(false)`: the tables are not as they should be.
    pub(super) fn remove(&mut self, layout: &Layout<'_>, plug: &Plug) -> Result<bool, Error> {
        self.change(&element_messages(layout, &[plug], Table::remove), layout, plug)
    }

    fn change(&mut self, messages: &[Message], layout: &Layout<'_>, plug: &Plug) -> Result<bool, Error> {
        match self.commit(messages) {
            Ok(()) => Ok(true),
            // ENOENT: table, set or element is missing; EEXIST, EBUSY: an element leads somewhere else.
            Err((_, error)) if matches!(error.errno(), Some(Errno::NOENT | Errno::EXIST | Errno::BUSY)) => Ok(false),
            Err((_, error)) => {
                Err(failed(format!("change elements of {} in nftables tables {}", plug.interface, layout.table))(error))
            }
        }
    }
}

/// One message per set and 200 elements.
fn element_messages<'t>(
    layout: &Layout<'t>,
    plugs: &[&Plug],
    change: impl Fn(&Table<'t>, &str, &[&Element]) -> Message,
) -> Vec<Message> {
    let mut messages = Vec::new();
    for table in layout.tables() {
        let mut elements: Vec<Element> = match table.family {
            nft::TableFamily::Inet => plugs.iter().flat_map(|plug| rules::port_elements(&plug.forwards)).collect(),
            nft::TableFamily::Bridge => plugs.iter().flat_map(|plug| rules::sender_elements(plug)).collect(),
        };
        elements.sort_by_key(|element| element.set);
        for of_one_set in elements.chunk_by(|a, b| a.set == b.set) {
            for part in of_one_set.chunks(ELEMENTS_PER_MESSAGE) {
                messages.push(change(&table, part[0].set, &part.iter().collect::<Vec<_>>()));
            }
        }
    }
    messages
}
