//! A client, for tests: as much as kubectl needs, frame by frame.

use std::collections::{BTreeMap, BTreeSet};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    frame::{self, HEAD, Head},
    headers::tests::Client as Deflater,
};

/// What came on each stream.
type Got = BTreeMap<u32, Vec<u8>>;

/// A connection.
pub(crate) struct Client<S> {
    socket: S,
    deflater: Deflater,
    got: Got,
    ended: BTreeSet<u32>,
    widened: BTreeMap<u32, usize>,
    pongs: usize,
    /// The first byte of a frame, read already.
    first: Option<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(socket: S) -> Self {
        let (got, ended, widened) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { socket, deflater: Deflater::new(), got, ended, widened, pongs: 0, first: None }
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
        self.socket.flush().await.unwrap();
    }

    /// Opens a stream and waits for the reply.
    pub(crate) async fn open(&mut self, id: u32, headers: &[(&str, &str)]) {
        self.open_without_reply(id, headers).await;
        while !self.got.contains_key(&id) {
            assert!(self.frame().await, "closed before the reply");
        }
    }

    /// Opens a stream.
    pub(crate) async fn open_without_reply(&mut self, id: u32, headers: &[(&str, &str)]) {
        let block = self.deflater.block(headers);
        let length = u32::try_from(10 + block.len()).unwrap().to_be_bytes();
        let mut frame = vec![0x80, 3, 0, 1, 0, length[1], length[2], length[3]];
        frame.extend(id.to_be_bytes());
        frame.extend([0; 6]);
        frame.extend(block);
        self.raw(&frame).await;
    }

    /// Sends everything, reading meanwhile.
    pub(crate) async fn send_all(&mut self, id: u32, bytes: &[u8]) {
        for chunk in bytes.chunks(10_000) {
            let mut frame = frame::data(id, chunk.len()).to_vec();
            frame.extend_from_slice(chunk);
            let mut left = &frame[..];
            while !left.is_empty() {
                let mut head = [0; HEAD];
                let (mut read, mut write) = tokio::io::split(&mut self.socket);
                let got = tokio::select! {
                    biased;
                    got = read.read(&mut head) => got.unwrap(),
                    sent = write.write(left) => {
                        left = &left[sent.unwrap()..];
                        continue;
                    }
                };
                read.read_exact(&mut head[got..]).await.unwrap();
                self.rest(head).await;
            }
        }
        self.socket.flush().await.unwrap();
    }

    /// Takes so many bytes more; with 0, in all streams together.
    pub(crate) async fn widen(&mut self, id: u32, more: u32) {
        self.raw(&frame::window(id, more)).await;
    }

    /// Says how many bytes of a stream may be on the way at first.
    pub(crate) async fn set_window(&mut self, bytes: u32) {
        let [a, b, c, d] = bytes.to_be_bytes();
        self.raw(&[0x80, 3, 0, 4, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 7, a, b, c, d]).await;
    }

    /// Gives a stream up.
    pub(crate) async fn reset(&mut self, id: u32) {
        self.raw(&frame::reset(id, frame::Reason::Cancel)).await;
    }

    /// Bytes that came on a stream so far.
    pub(crate) fn length(&self, id: u32) -> usize {
        self.got.get(&id).map_or(0, Vec::len)
    }

    /// By how much the server has widened a stream's window.
    pub(crate) fn widened(&self, id: u32) -> usize {
        self.widened.get(&id).copied().unwrap_or(0)
    }

    /// Pings that were answered.
    pub(crate) fn pongs(&self) -> usize {
        self.pongs
    }

    /// Reads until a stream has so many bytes.
    pub(crate) async fn until_length(&mut self, id: u32, bytes: usize) {
        while self.length(id) < bytes {
            assert!(self.frame().await, "closed");
        }
    }

    /// Reads for as long as anything comes.
    pub(crate) async fn until_quiet(&mut self) {
        while tokio::time::timeout(std::time::Duration::from_millis(300), self.socket.read_u8()).await.is_ok_and(|byte| {
            self.first = byte.ok();
            self.first.is_some()
        }) {
            assert!(self.frame().await, "closed");
        }
    }

    pub(crate) async fn fin(&mut self, id: u32) {
        self.raw(&frame::fin(id)).await;
    }

    pub(crate) async fn until_closed(&mut self) -> Got {
        while self.frame().await {}
        std::mem::take(&mut self.got)
    }

    pub(crate) async fn until_ended(&mut self, streams: &[u32]) -> Got {
        while !streams.iter().all(|id| self.ended.contains(id)) {
            assert!(self.frame().await, "closed");
        }
        std::mem::take(&mut self.got)
    }

    /// Reads a frame; `false`: closed.
    async fn frame(&mut self) -> bool {
        let mut head = [0; HEAD];
        let from = usize::from(self.first.is_some());
        head[0] = self.first.take().unwrap_or(0);
        let read = self.socket.read_exact(&mut head[from..]).await.is_ok();
        if read {
            self.rest(head).await;
        }
        read
    }

    async fn rest(&mut self, head: [u8; HEAD]) {
        let head = Head::parse(head).unwrap();
        let (Head::Data { length, .. } | Head::Control { length, .. }) = head;
        let mut payload = vec![0; length as usize];
        self.socket.read_exact(&mut payload).await.unwrap();
        let id = || u32::from_be_bytes(*payload.first_chunk().unwrap());
        match head {
            Head::Data { id, fin, .. } => {
                self.got.entry(id).or_default().extend(payload);
                if fin {
                    self.ended.insert(id);
                }
            }
            Head::Control { kind: 2, .. } => {
                self.got.entry(id()).or_default();
            }
            Head::Control { kind: 3, .. } => {
                self.ended.insert(id());
            }
            Head::Control { kind: 6, .. } => self.pongs += 1,
            Head::Control { kind: 9, .. } => {
                let more = u32::from_be_bytes(*payload[4..].first_chunk().unwrap());
                *self.widened.entry(id()).or_default() += more as usize;
            }
            Head::Control { .. } => {}
        }
    }
}
