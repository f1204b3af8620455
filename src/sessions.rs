//! Streaming sessions: the streaming server's house is the engine.

use std::sync::Arc;

use engine::{Engine, Error, ProcessStreams, StreamOptions};
use model::PodId;
use streaming::{AttachRequest, Backend, ExecRequest, Exit, Failure, Process, Resize, Socket, Wanted};

/// What the streaming server asks.
#[derive(Clone, Debug)]
pub(crate) struct Sessions(pub(crate) Engine);

impl Sessions {
    /// Runs a command with streams.
    pub(crate) async fn run(&self, request: ExecRequest) -> Result<Process, Error> {
        let (streams, ended) = self.0.exec(request.container, request.command, options(request.wanted)).await?;
        let exit: Exit = Box::pin(async move { ended.await.map_err(|e| failure(&e)) });
        Ok(Process { exit: Some(exit), ..process(streams) })
    }

    /// The streams of a container's main process.
    pub(crate) async fn follow(&self, request: AttachRequest) -> Result<Process, Error> {
        self.0.attach(request.container, options(request.wanted)).await.map(process)
    }
}

impl Backend for Sessions {
    async fn exec(&self, request: ExecRequest) -> Result<Process, Failure> {
        self.run(request).await.map_err(|e| failure(&e))
    }

    async fn attach(&self, request: AttachRequest) -> Result<Process, Failure> {
        self.follow(request).await.map_err(|e| failure(&e))
    }

    async fn dial(&self, pod: PodId, port: u16) -> Result<Box<dyn Socket>, Failure> {
        match self.0.dial(pod, port).await {
            Ok(socket) => Ok(Box::new(socket)),
            Err(error) => Err(failure(&error)),
        }
    }
}

fn options(wanted: Wanted) -> StreamOptions {
    StreamOptions { stdin: wanted.stdin, tty: wanted.tty }
}

/// As the streaming server says it.
pub(crate) fn failure(error: &Error) -> Failure {
    Failure(error.chain())
}

/// What the engine gives, as the streaming server takes it.
pub(crate) fn process(streams: ProcessStreams) -> Process {
    let ProcessStreams { stdin, stdout, stderr, terminal } = streams;
    let resize = terminal.map(|terminal| {
        let terminal = Arc::new(terminal);
        let resize: Resize = Box::new(move |size| {
            let terminal = terminal.clone();
            Box::pin(async move { terminal.resize(size.width, size.height).await })
        });
        resize
    });
    Process { stdin, stdout, stderr, resize, exit: None }
}
