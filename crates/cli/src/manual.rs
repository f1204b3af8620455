//! Completion scripts and the manual's pages, out of the same definitions that read the command line.

use std::{fs, io, path::Path};

use clap::{Command, CommandFactory as _};
use clap_complete::env::Shells;

use crate::{
    args::{Arguments, Shell},
    error::{self, Error, Exit},
    examples, output,
};

/// Bash ends words where names of images, ports and `--flag=value` have no end. What is offered is what stands behind the last of
/// these ends.
const BASH: &str = r#"_creel_complete() {
    local line="${COMP_LINE:0:COMP_POINT}" words=() space=true
    read -ra words <<< "$line"
    if [[ "$line" == *[[:space:]] ]]; then
        words+=("")
    fi
    local last=$((${#words[@]} - 1))
    if compopt +o nospace 2> /dev/null; then
        space=false
    fi
    local IFS=$'\013'
    COMPREPLY=($(_CLAP_IFS="$IFS" _CLAP_COMPLETE_INDEX="$last" _CLAP_COMPLETE_COMP_TYPE="$COMP_TYPE" \
        _CLAP_COMPLETE_SPACE="$space" COMPLETE=bash PROGRAM -- "${words[@]}"))
    if [[ $? != 0 ]]; then
        unset COMPREPLY
        return
    fi
    local current="${words[last]}" ends="" end
    for end in : =; do
        if [[ "$COMP_WORDBREAKS" == *"$end"* ]]; then
            ends+="$end"
        fi
    done
    if [[ -n "$ends" && "$current" == *[$ends]* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*[$ends]}"}"}")
    fi
    if [[ $space == false && "${COMPREPLY-}" =~ [=/:]$ ]]; then
        compopt -o nospace
    fi
}
complete -o nospace -o bashdefault -F _creel_complete creel
"#;

/// A script that lets a shell ask creel what could come next.
pub(crate) fn completions(shell: Shell) -> Result<Exit, Error> {
    let program = std::env::current_exe().map_err(error::io("find creel"))?;
    let program = program.display().to_string();
    if shell == Shell::Bash {
        let quoted = format!("'{}'", program.replace('\'', r"'\''"));
        return output::print(&BASH.replace("PROGRAM", &quoted)).map(|()| Exit(0));
    }
    let shells = Shells::builtins();
    let Some(shell) = shells.completer(shell.name()) else {
        return Err(Error::Refused { name: shell.name().to_owned(), why: "there is no script for this shell" });
    };
    let write = shell.write_registration("COMPLETE", "creel", "creel", &program, &mut io::stdout());
    write.map_err(error::io("write to standard output"))?;
    Ok(Exit(0))
}

/// A page per command: `creel.1`, `creel-run.1`, ...
pub(crate) fn pages(directory: &Path) -> Result<Exit, Error> {
    let failed = || error::io(format!("write the manual's pages to {}", directory.display()));
    fs::create_dir_all(directory).map_err(failed())?;
    let command = with_examples(Arguments::command(), "");
    clap_mangen::generate_to(command, directory).map_err(failed())?;
    Ok(Exit(0))
}

/// The same commands, each with an example at the end of its page.
fn with_examples(command: Command, words: &str) -> Command {
    let command = match examples::of(words) {
        Some(example) => command.after_long_help(format!("Example:\n\n    {example}")),
        None => command,
    };
    command.disable_help_subcommand(true).mut_subcommands(|below| {
        let words = format!("{words} {}", below.get_name());
        with_examples(below, words.trim_start())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        pages(dir.path()).unwrap();
        let page = fs::read_to_string(dir.path().join("creel-run.1")).unwrap();
        assert!(page.contains("creel run") && page.contains("shop:1"), "an example: {page}");
        assert!(page.contains("Run a command in a new container") && page.contains("entrypoint"), "{page}");
        assert!(dir.path().join("creel.1").exists() && dir.path().join("creel-container-prune.1").exists());
    }
}
