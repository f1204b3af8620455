//! `creel rmi`, `creel tag` and `creel image prune`.

use std::io::{IsTerminal as _, Write as _};

use api::creel::{PruneImagesRequest, Removal, RemoveImageRequest, TagImageRequest, removal::What};

use crate::{
    args::{Prune, Rmi},
    client::Client,
    error::{self, Error, Exit},
    output, time,
};

/// Gives an image another name.
pub(crate) async fn tag(client: &mut Client, source: String, target: String) -> Result<Exit, Error> {
    client.images.tag(TagImageRequest { source, target }).await.map_err(error::daemon)?;
    Ok(Exit(0))
}

/// Removes images, one after the other; what fails is told at the end.
pub(crate) async fn remove(client: &mut Client, args: &Rmi) -> Result<Exit, Error> {
    let mut errors = Vec::new();
    for image in &args.images {
        let request = RemoveImageRequest { image: image.clone(), force: args.force };
        match client.images.remove(request).await {
            Ok(answer) => output::print(&lines(&answer.into_inner().removals, "Untagged", "Deleted"))?,
            Err(status) => errors.push(status),
        }
    }
    for status in &errors {
        output::note(&format!("Error response from daemon: {}", error::last(status.message())));
    }
    // Forced removal of what is not there is not a failure, as long as nothing else is one.
    let all_missing = errors.iter().all(|status| status.code() == tonic::Code::NotFound);
    Ok(Exit(u8::from(!(errors.is_empty() || args.force && all_missing))))
}

fn lines(removals: &[Removal], untagged: &str, deleted: &str) -> String {
    let line = |removal: &Removal| match &removal.what {
        Some(What::Untagged(name)) => format!("{untagged}: {name}\n"),
        Some(What::Deleted(digest)) => format!("{deleted}: {digest}\n"),
        None => String::new(),
    };
    removals.iter().map(line).collect()
}

/// Removes what nobody uses, after asking.
pub(crate) async fn prune(client: &mut Client, args: &Prune) -> Result<Exit, Error> {
    let warning = if args.all {
        "WARNING! This will remove all images without at least one container associated to them."
    } else {
        "WARNING! This will remove all dangling images."
    };
    if !args.force && !confirmed(warning)? {
        return Ok(Exit(0));
    }
    let request = request(args)?;
    let pruned = client.images.prune(request).await.map_err(error::daemon)?.into_inner();
    told(&pruned.removals)?;
    output::print(&format!("Total reclaimed space: {}\n", output::space(pruned.reclaimed)))?;
    Ok(Exit(0))
}

/// What images were pruned, if any.
pub(crate) fn told(removals: &[Removal]) -> Result<(), Error> {
    if removals.is_empty() {
        return Ok(());
    }
    output::print(&format!("Deleted Images:\n{}\n", lines(removals, "untagged", "deleted")))
}

fn request(args: &Prune) -> Result<PruneImagesRequest, Error> {
    let wrong = |value: &str, why: &str| Error::Option { option: "--filter", value: value.to_owned(), why: why.to_owned() };
    let mut request = PruneImagesRequest { all: args.all, ..PruneImagesRequest::default() };
    for filter in &args.filter {
        match filter.split_once('=') {
            Some(("until", value)) => {
                request.until = time::point(value).ok_or_else(|| wrong(filter, "not a time or a duration"))?
            }
            Some(("label!", value)) => request.without_labels.push(value.to_owned()),
            Some(("label", value)) => request.labels.push(value.to_owned()),
            Some(("dangling", "false")) => request.all = true,
            Some(("dangling", "true")) => request.all = false,
            _ => return Err(wrong(filter, "the filters are until, label, label! and dangling")),
        }
    }
    Ok(request)
}

/// Asks; without a terminal the answer is no.
pub(crate) fn confirmed(warning: &str) -> Result<bool, Error> {
    write!(std::io::stderr(), "{warning}\nAre you sure you want to continue? [y/N] ").ok();
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        writeln!(std::io::stderr()).ok();
        return Ok(false);
    }
    let mut line = String::new();
    stdin.read_line(&mut line).map_err(error::io("read the answer"))?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
