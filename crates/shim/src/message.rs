//! What an OCI runtime's log says: the last error, and whether it is about the program that was to run.

/// The `msg` of the last line with one. Lines are JSON objects, as `--log-format json` makes them; what cannot be read as
/// one is not looked at.
pub(crate) fn last_error(log: &str) -> Option<String> {
    let messages = || log.lines().rev().filter_map(|line| Some((line, field(line, "msg")?)));
    let error = messages().find(|(line, _)| matches!(field(line, "level").as_deref(), Some("error" | "fatal" | "panic")));
    error.or_else(|| messages().next()).map(|(_, text)| text).filter(|text| !text.is_empty())
}

/// The exit code that shells give to a program that could not be run, if that is what the runtime complains of: runc says
/// `exec: "x": executable file not found in $PATH` or `exec /x: permission denied`, crun ``executable file `x` not found``
/// or ``open executable: Permission denied``.
pub(crate) fn exit_code(why: &str) -> Option<i32> {
    let why = why.to_ascii_lowercase();
    let about_program = why.contains("exec: \"") || why.contains("exec /") || why.contains("executable");
    let any = |words: &[&str]| words.iter().any(|word| why.contains(word));
    if !about_program {
        None
    } else if any(&["not found", "no such file or directory"]) {
        Some(127)
    } else if any(&["permission denied", "is a directory", "operation not permitted", "exec format error", "not executable"]) {
        Some(126)
    } else {
        None
    }
}

/// The text of a field of a flat JSON object.
fn field(line: &str, name: &str) -> Option<String> {
    let mut rest = line.trim().strip_prefix('{')?;
    loop {
        let (key, after) = string(rest.trim_start())?;
        let after = after.trim_start().strip_prefix(':')?.trim_start();
        let (value, after) = match string(after) {
            Some((value, after)) => (Some(value), after),
            // A number or a word; objects are not looked into.
            None => (None, after.trim_start_matches(|c: char| c != ',' && c != '}')),
        };
        if key == name {
            return value;
        }
        rest = after.trim_start().strip_prefix(',')?;
    }
}

/// A string of JSON, and what follows it.
fn string(text: &str) -> Option<(String, &str)> {
    let mut chars = text.strip_prefix('"')?.char_indices();
    let mut out = String::new();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 2..])),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' | 'b' | 'f' => {}
                'u' => {
                    let digits: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                    let number = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4)?;
                    out.push(char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                other => out.push(other),
            },
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_counts() {
        let log = concat!(
            "{\"level\":\"error\",\"msg\":\"first\",\"time\":\"t\"}\n",
            "{\"time\":\"t\", \"level\" : \"error\", \"n\": 3, \"msg\":\"exec: \\\"x\\\": \\u0041\\nb \\u00fc\"}\n",
            "{\"level\":\"warning\",\"msg\":\"later\"}\n",
            "garbage\n",
        );
        assert_eq!(last_error(log).unwrap(), "exec: \"x\": A\nb ü");
        // crun 1.8 has no level but in its newer lines.
        assert_eq!(last_error("{\"msg\":\"only\"}").unwrap(), "only");
        for nothing in
            ["", "{}", "{\"msg\":\"\"}", "{\"msg\":5}", "{\"msg\":\"cut", "{\"msg\":\"\\u12\"}", "[\"msg\"]", "{\"a\":{\"msg\":1}"]
        {
            assert_eq!(last_error(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn what_is_about_the_program_has_an_exit_code() {
        for (code, why) in [
            (Some(127), "runc create failed: unable to start container process: exec: \"foo\": executable file not found in $PATH"),
            (Some(127), "exec failed: exec: \"/nope\": stat /nope: no such file or directory"),
            (Some(127), "executable file `foo` not found in $PATH: No such file or directory"),
            (Some(126), "unable to start container process: exec: \"/etc\": is a directory"),
            (Some(126), "unable to start container process: exec: \"/x\": permission denied"),
            (Some(126), "open executable: Permission denied"),
            (None, "error mounting \"/x\" to rootfs: no such file or directory"),
            (None, "container with id exists: abc"),
        ] {
            assert_eq!(exit_code(why), code, "{why}");
        }
    }
}
