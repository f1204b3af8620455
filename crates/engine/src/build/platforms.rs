//! Platforms: what is built for another one is copied and described, and nothing of it is run.

use model::ErrorKind;

use dockerfile::{Base, Instruction};

use super::{BuildOutput, BuildRequest, Failed, graph::Build, refuse};
use crate::{error::Error, image::Platform};

/// Whether programs of a platform run on this machine.
fn runs_here(platform: &Platform) -> bool {
    let host = Platform::host();
    // Kernels of amd64 run them too, as distributions configure them.
    let older = host.architecture == "amd64" && platform.architecture == "386" && host.os == platform.os;
    older || host.suits(platform).is_some()
}

/// What several platforms cannot become is said before anything is built.
pub(super) fn check_outputs(request: &BuildRequest) -> Result<(), Error> {
    if request.platforms.len() < 2 {
        return Ok(());
    }
    let can_hold = |output: &BuildOutput| matches!(output, BuildOutput::Push | BuildOutput::Archive(_));
    let outputs = &request.wanted.outputs;
    if outputs.is_empty() || !outputs.iter().all(can_hold) {
        let why = "several platforms become an index, which a registry (--push) or an archive (type=oci,dest=FILE) holds; the store \
                   keeps one platform under a name, and files have none: build one after the other";
        return Err(refuse(ErrorKind::Unsupported, why));
    }
    if !request.cache.to.is_empty() {
        return Err(refuse(ErrorKind::Unsupported, "--cache-to takes the steps of one platform: build one after the other"));
    }
    Ok(())
}

impl Build<'_> {
    /// What a stage is for: what its FROM says, or the stage that it goes on from, or the build.
    ///
    /// # Errors
    /// FROM says something that is no platform.
    pub(super) fn platform_of(&self, mut number: usize) -> Result<Platform, Error> {
        while let Base::Stage(before) = self.stages.stages[number].base {
            number = before;
        }
        let Some(text) = &self.stages.stages[number].platform else { return Ok(self.platform.clone()) };
        let why = || format!("FROM --platform={text}: not OS/ARCHITECTURE[/VARIANT]");
        Platform::parse(text).ok_or_else(|| refuse(ErrorKind::InvalidArgument, why()))
    }

    /// # Errors
    /// `Unsupported`: programs of a stage do not run here.
    pub(super) fn check_runs_here(&self, stage: usize) -> Result<(), Error> {
        let platform = self.platform_of(stage)?;
        if runs_here(&platform) {
            return Ok(());
        }
        let why = format!(
            "RUN in a stage for {platform}: its programs do not run on {}, and nothing is emulated; do it in a stage FROM \
             --platform=$BUILDPLATFORM, and COPY --from there what it makes",
            Platform::host()
        );
        Err(refuse(ErrorKind::Unsupported, why))
    }

    /// What would fail later for sure fails before anything is done.
    pub(super) fn check_platforms(&self) -> Result<(), Failed> {
        for number in &self.stages.needed {
            let stage = &self.stages.stages[*number];
            let at = |located: &dockerfile::Located, error| Failed { error, lines: Some((located.first, located.last)) };
            self.platform_of(*number).map_err(|e| at(stage.from, e))?;
            let first = stage.steps.iter().find(|located| matches!(located.instruction, Instruction::Run(_)));
            first.map_or(Ok(()), |located| self.check_runs_here(*number).map_err(|e| at(located, e)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_here() {
        let host = Platform::host();
        assert!(runs_here(&host));
        for other in ["plan9/mips", "linux/s390x", "windows/amd64"] {
            assert!(!runs_here(&Platform::parse(other).unwrap()), "{other}");
        }
        if host.architecture == "amd64" {
            assert!(runs_here(&Platform::parse("linux/386").unwrap()) && !runs_here(&Platform::parse("linux/amd64/v3").unwrap()));
        }
    }
}
