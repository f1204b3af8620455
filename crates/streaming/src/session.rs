//! One exec or attach: a process's streams and a client's, tied together.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    time::Instant,
};

use crate::{
    backend::{Exit, Failure, Input, Output, Process, Resize, Size},
    channel::{CHUNK, Link, Outgoing},
    inbox::Incoming,
    status::Format,
};

/// How long to wait for output after the process has ended: a child in the background may hold its pipes open.
const DRAIN: Duration = Duration::from_millis(500);
/// Bytes of a stream that are passed on after the process has ended: what a pipe can hold, and so whatever the process
/// itself wrote (/proc/sys/fs/pipe-max-size by default).
const LEFT: usize = 1 << 20;
/// Bytes of one message about the terminal's size at most.
const RESIZE: usize = 1024;

/// A client's side of a session.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stdin: Option<Incoming>,
    pub(crate) resize: Option<Incoming>,
    pub(crate) stdout: Option<Outgoing>,
    pub(crate) stderr: Option<Outgoing>,
    pub(crate) error: Outgoing,
    pub(crate) status: Format,
    pub(crate) link: Link,
}

/// Runs until the process has ended or the client has gone. The process is dropped then.
pub(crate) async fn run(client: Client, process: Result<Process, Failure>) {
    let Client { stdin, resize, stdout, stderr, error, status, link } = client;
    let result = match process {
        Err(failure) => Err(failure),
        Ok(process) => {
            let ends = Ends { stdin, resize, stdout, stderr };
            tokio::select! {
                result = converse(ends, process) => result,
                () = link.gone() => return,
            }
        }
    };
    if let Some(text) = status.of(&result) {
        let _ = error.send(text).await;
    }
    error.finish().await;
    link.finish().await;
}

/// The client's ends of a process's streams.
pub(crate) struct Ends {
    pub(crate) stdin: Option<Incoming>,
    pub(crate) resize: Option<Incoming>,
    pub(crate) stdout: Option<Outgoing>,
    pub(crate) stderr: Option<Outgoing>,
}

/// Ties the streams together until the process has ended and its output been passed on.
pub(crate) async fn converse(ends: Ends, process: Process) -> Result<i32, Failure> {
    let Process { stdin, stdout, stderr, resize, exit } = process;
    let input = feed(ends.stdin, stdin);
    let sizes = follow(ends.resize, resize);
    let (ended, exited) = watch::channel(false);
    let output = async {
        tokio::join!(show(stdout, ends.stdout, exited.clone()), show(stderr, ends.stderr, exited));
    };
    // Neither of the first two ends a session.
    let background = async {
        tokio::join!(input, sizes);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = end(output, exit, ended) => result,
        () = background => unreachable!("pending"),
    }
}

/// A process has ended when it says so, and its output has been passed on; one that is attached to when its output has.
async fn end(output: impl Future<Output = ()>, exit: Option<Exit>, ended: watch::Sender<bool>) -> Result<i32, Failure> {
    let Some(mut exit) = exit else {
        output.await;
        return Ok(0);
    };
    let mut output = std::pin::pin!(output);
    tokio::select! {
        result = &mut exit => {
            ended.send_replace(true);
            output.await;
            result
        }
        () = &mut output => exit.await,
    }
}

/// From the client to the process. At the client's end the process sees its own.
async fn feed(from: Option<Incoming>, to: Option<Input>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    while let Some(bytes) = from.next().await {
        if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
            // A process that reads no more: what comes now is dropped with `from`.
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// From the process to the client; what nobody wants is read all the same, so that the process does not block. A client
/// may take as long as it likes for what there is; only what does not come from the process is not waited for.
async fn show(from: Option<Output>, mut to: Option<Outgoing>, exited: watch::Receiver<bool>) {
    if let Some(from) = from {
        let mut source = Source { from, exited, wait: DRAIN, left: LEFT };
        let mut chunk = vec![0; CHUNK];
        while let Some(got) = source.read(&mut chunk).await {
            if let Some(wanted) = &to
                && wanted.send(chunk[..got].to_vec().into()).await.is_err()
            {
                to = None;
            }
        }
    }
    if let Some(to) = to {
        to.finish().await;
    }
}

/// A process's output, while it runs and what is left of it afterwards.
struct Source {
    from: Output,
    exited: watch::Receiver<bool>,
    /// How long it may still be waited for when the process has ended, and how much passed on.
    wait: Duration,
    left: usize,
}

impl Source {
    /// The next output; `None`: there is no more.
    async fn read(&mut self, chunk: &mut [u8]) -> Option<usize> {
        let (begin, exited) = (Instant::now(), *self.exited.borrow());
        let late = async {
            if self.exited.wait_for(|exited| *exited).await.is_ok() {
                tokio::time::sleep(self.wait).await;
            } else {
                // Attached to: the output ends by itself.
                std::future::pending::<()>().await;
            }
        };
        let got = tokio::select! {
            biased;
            got = self.from.read(chunk) => got.ok().filter(|got| *got > 0),
            () = late => None,
        }?;
        if exited {
            self.wait = self.wait.saturating_sub(begin.elapsed());
            self.left = self.left.checked_sub(got)?;
        }
        Some(got)
    }
}

/// The terminal's size, whenever the client says it anew.
async fn follow(from: Option<Incoming>, resize: Option<Resize>) {
    let (Some(mut from), Some(resize)) = (from, resize) else { return };
    let mut text = Vec::new();
    while let Some(bytes) = from.next().await {
        text.extend_from_slice(&bytes);
        let (sizes, used) = sizes(&text);
        text.drain(..used);
        if let Some(size) = sizes.last() {
            resize(*size).await;
        }
        if text.len() > RESIZE {
            return;
        }
    }
}

/// Whole JSON objects at the beginning of a text, and their length.
pub(crate) fn sizes(text: &[u8]) -> (Vec<Size>, usize) {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<serde_json::Value>();
    let (mut sizes, mut used) = (Vec::new(), 0);
    while let Some(Ok(value)) = values.next() {
        used = values.byte_offset();
        let side = |name: &str| value.get(name).and_then(serde_json::Value::as_u64).and_then(|side| u16::try_from(side).ok());
        if let (Some(width @ 1..), Some(height @ 1..)) = (side("Width"), side("Height")) {
            sizes.push(Size { width, height });
        }
    }
    (sizes, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_come() {
        let at = |width, height| Size { width, height };
        assert_eq!(sizes(br#"{"Width":80,"Height":24}"#), (vec![at(80, 24)], 24));
        let two = b"{\"Width\":80,\"Height\":24}\n{\"Width\":1,\"Height\":2}\n{\"Wi";
        assert_eq!(sizes(two).0, [at(80, 24), at(1, 2)]);
        assert!(sizes(two).1 < two.len() - 3);
        for useless in [&br#"{"Width":0,"Height":24}"#[..], br#"{"Width":70000,"Height":24}"#, b"[1]", b"{", b"", b"nonsense"] {
            assert!(sizes(useless).0.is_empty());
        }
    }
}
