//! Command line and working directory: the client's over the image's.

use model::container::{ContainerSpec, ImageDefaults};

use super::{
    error::{Error, cut},
    path,
};

/// argv. A client's command replaces the image's entrypoint *and* its cmd; its args replace the cmd only.
///
/// # Errors
/// Nothing to run, an empty program name, a NUL.
pub(crate) fn args(spec: &ContainerSpec, image: &ImageDefaults) -> Result<Vec<String>, Error> {
    let (mut command, mut args) = (&spec.command, &spec.args);
    if command.is_empty() {
        let reset = spec.own.as_ref().is_some_and(|own| own.no_entrypoint);
        if !reset {
            command = &image.entrypoint;
        }
        if args.is_empty() && !reset {
            args = &image.cmd;
        }
    }
    checked(command.iter().chain(args).cloned().collect())
}

/// A command line that execve(2) takes.
pub(crate) fn checked(args: Vec<String>) -> Result<Vec<String>, Error> {
    match args.first() {
        None => return Err(Error::Command("nothing to run: neither the client nor the image names a program")),
        Some(program) if program.is_empty() => return Err(Error::Command("the program's name is empty")),
        Some(_) => {}
    }
    if args.iter().any(|arg| arg.contains('\0')) {
        return Err(Error::Command("an argument has a NUL"));
    }
    Ok(args)
}

/// The working directory, cleaned; the executor resolves it inside the root.
pub(crate) fn working_dir(spec: &ContainerSpec, image: &ImageDefaults) -> Result<String, Error> {
    let given = [&spec.working_dir, &image.working_dir].into_iter().find(|path| !path.is_empty());
    let Some(given) = given else { return Ok("/".to_owned()) };
    let why = "must be an absolute path of less than 4096 bytes without control characters";
    path::clean(given).ok_or_else(|| Error::WorkingDir { path: cut(given), why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::container;

    fn strings(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_runs() {
        for (command, arguments, entrypoint, cmd, expected) in [
            ("", "", "e", "c d", "e c d"),
            ("", "", "", "c d", "c d"),
            ("", "a", "e", "c d", "e a"),
            ("x", "", "e", "c d", "x"),
            ("x y", "a", "e", "c d", "x y a"),
            ("", "a b", "", "", "a b"),
        ] {
            let spec = ContainerSpec { command: strings(command), args: strings(arguments), ..container() };
            let image = ImageDefaults { entrypoint: strings(entrypoint), cmd: strings(cmd), ..Default::default() };
            assert_eq!(args(&spec, &image).unwrap(), strings(expected), "{command} {arguments} {entrypoint} {cmd}");
        }
        assert!(args(&container(), &ImageDefaults::default()).is_err());
        for bad in [vec![String::new()], vec!["a".into(), "\0".into()]] {
            assert!(checked(bad).is_err());
        }
    }

    #[test]
    fn where_it_runs() {
        for (client, image, expected) in
            [("", "", Some("/")), ("/a//b/", "/c", Some("/a/b")), ("", "/c/../d", Some("/d")), ("a", "/", None)]
        {
            let spec = ContainerSpec { working_dir: client.into(), ..container() };
            let image = ImageDefaults { working_dir: image.into(), ..Default::default() };
            assert_eq!(working_dir(&spec, &image).ok().as_deref(), expected, "{client} {image:?}");
        }
    }
}
