//! A connection to the system bus, for one request and its answer.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    Error,
    message::{self, Call, FIXED, Message},
};

/// For a request with everything that belongs to it. systemd on a busy node has been seen to take seconds.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The bus itself, for calls.
pub(crate) const BUS: (&str, &str, &str) = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus");

/// A connection.
#[derive(Debug)]
pub(crate) struct Bus {
    stream: UnixStream,
    serial: u32,
    until: Instant,
    /// Signals that came while an answer was waited for.
    signals: Vec<Message>,
}

impl Bus {
    /// Connects and says hello (D-Bus specification, "Authentication Protocol").
    pub(crate) fn connect(path: &Path) -> Result<Self, Error> {
        let stream = UnixStream::connect(path).map_err(|source| Error::Connect { path: path.to_owned(), source })?;
        let mut bus = Self { stream, serial: 0, until: Instant::now() + LIMIT, signals: Vec::new() };
        let uid = rustix::process::geteuid().as_raw().to_string();
        let uid: String = uid.bytes().map(|digit| format!("{digit:02x}")).collect();
        bus.write("authentication", format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes())?;
        let answer = bus.line()?;
        if !answer.starts_with("OK ") {
            return Err(Error::Auth { answer });
        }
        bus.write("authentication", b"BEGIN\r\n")?;
        bus.call(BUS, "Hello", "", &[])?;
        Ok(bus)
    }

    /// Calls a method of `(destination, path, interface)` and waits for the answer.
    pub(crate) fn call(
        &mut self,
        of: (&str, &str, &str),
        member: &'static str,
        signature: &str,
        body: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.serial += 1;
        let (destination, path, interface) = of;
        let call = Call { destination, path, interface, member, signature, body };
        self.write(member, &message::encode(&call, self.serial))?;
        loop {
            match self.receive(member)? {
                Message::Return { to, body } if to == self.serial => return Ok(body),
                Message::Error { to, name, body } if to == self.serial => {
                    let message = message::Reader::new(&body).string().unwrap_or_default();
                    return Err(Error::Refused { call: member, name, message });
                }
                signal @ Message::Signal { .. } => self.signals.push(signal),
                Message::Return { .. } | Message::Error { .. } | Message::Other => {}
            }
        }
    }

    /// The next signal.
    pub(crate) fn signal(&mut self, waiting_for: &'static str) -> Result<Message, Error> {
        if !self.signals.is_empty() {
            return Ok(self.signals.remove(0));
        }
        loop {
            let message = self.receive(waiting_for)?;
            if matches!(message, Message::Signal { .. }) {
                return Ok(message);
            }
        }
    }

    fn receive(&mut self, call: &'static str) -> Result<Message, Error> {
        let mut bytes = vec![0; FIXED];
        self.read(call, &mut bytes)?;
        let fixed = bytes.first_chunk::<FIXED>().expect("has just been made this long");
        let rest = message::rest(fixed)?;
        bytes.resize(FIXED + rest, 0);
        self.read(call, &mut bytes[FIXED..])?;
        message::decode(&bytes)
    }

    /// One line of the authentication, without its end.
    fn line(&mut self) -> Result<String, Error> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.read("authentication", &mut byte)?;
            line.push(byte[0]);
            if line.len() > 512 {
                break;
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn read(&mut self, call: &'static str, mut buffer: &mut [u8]) -> Result<(), Error> {
        while !buffer.is_empty() {
            self.stream.set_read_timeout(Some(self.left(call)?)).map_err(|source| Error::Io { call, source })?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(Error::Io { call, source: io::ErrorKind::UnexpectedEof.into() }),
                Ok(count) => buffer = &mut buffer[count..],
                Err(error) if is_pause(&error) => {}
                Err(source) => return Err(Error::Io { call, source }),
            }
        }
        Ok(())
    }

    fn write(&mut self, call: &'static str, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(self.left(call)?)).map_err(|source| Error::Io { call, source })?;
            match self.stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_pause(&error) => {}
                Err(source) => return Err(Error::Io { call, source }),
            }
        }
        Ok(())
    }

    fn left(&self, call: &'static str) -> Result<Duration, Error> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(Error::Deadline { call, limit: LIMIT }) } else { Ok(left) }
    }
}

/// The time limit of the socket ran out, which the next look at the clock says, or a signal came.
fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
