//! An example for every command's page of the manual.

/// Command, and how it is used.
const ALL: [(&str, &str); 69] = [
    ("attach", "creel attach --detach-keys ctrl-x web"),
    ("build", "creel build -t shop:1 --build-arg VERSION=3 ."),
    ("build history inspect", "creel build history inspect"),
    ("build history logs", "creel build history logs"),
    ("build history ls", "creel build history ls"),
    ("build history rm", "creel build history rm --all"),
    ("build prune", "creel build prune --filter until=24h"),
    ("commit", "creel commit -c 'CMD [\"serve\"]' web shop:fixed"),
    ("completions", "source <(creel completions bash)"),
    ("container inspect", "creel container inspect -f '{{.State.Status}}' web"),
    ("container ls", "creel container ls -a --filter status=exited"),
    ("container prune", "creel container prune -f --filter until=24h"),
    ("cp", "creel cp -a web:/etc/app ./app"),
    ("create", "creel create --name web -p 8080:80 shop:1"),
    ("diff", "creel diff web"),
    ("events", "creel events --since 10m --filter type=container"),
    ("exec", "creel exec -it web sh"),
    ("export", "creel export -o web.tar web"),
    ("history", "creel history --no-trunc shop:1"),
    ("image inspect", "creel image inspect -f '{{join .RepoTags \", \"}}' shop:1"),
    ("image ls", "creel image ls --filter dangling=true"),
    ("image prune", "creel image prune -a -f"),
    ("image rm", "creel image rm shop:1"),
    ("images", "creel images --digests shop"),
    ("import", "creel import -c 'CMD [\"sh\"]' root.tar tools:1"),
    ("info", "creel info --format json"),
    ("inspect", "creel inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' web"),
    ("kill", "creel kill -s HUP web"),
    ("load", "creel load -i shop.tar"),
    ("login", "creel login -u me --password-stdin registry.example < secret"),
    ("logout", "creel logout registry.example"),
    ("logs", "creel logs -f --tail 100 web"),
    ("man", "creel man /usr/local/share/man/man1"),
    ("network connect", "creel network connect --alias db shop-net web"),
    ("network create", "creel network create --subnet 10.5.0.0/24 shop-net"),
    ("network disconnect", "creel network disconnect shop-net web"),
    ("network inspect", "creel network inspect -f '{{json .IPAM}}' shop-net"),
    ("network ls", "creel network ls -q"),
    ("network prune", "creel network prune -f"),
    ("network rm", "creel network rm shop-net"),
    ("pause", "creel pause web"),
    ("port", "creel port web 80/tcp"),
    ("port-forward", "creel port-forward POD 8080:80"),
    ("ps", "creel ps -a --format 'table {{.Names}}\\t{{.Status}}'"),
    ("pull", "creel pull registry.example/shop:1"),
    ("push", "creel push registry.example/shop:1"),
    ("rename", "creel rename web shop"),
    ("restart", "creel restart -t 30 web"),
    ("rm", "creel rm -f -v web"),
    ("rmi", "creel rmi shop:1"),
    ("run", "creel run -d --name web --restart always -p 127.0.0.1:8080:80 -v data:/srv shop:1"),
    ("save", "creel save -o shop.tar shop:1"),
    ("search", "creel search --limit 5 nginx"),
    ("start", "creel start -a web"),
    ("stats", "creel stats --no-stream"),
    ("stop", "creel stop -t 30 web"),
    ("system df", "creel system df"),
    ("system prune", "creel system prune -a --volumes"),
    ("tag", "creel tag shop:1 registry.example/shop:1"),
    ("top", "creel top web -o pid,cmd"),
    ("unpause", "creel unpause web"),
    ("update", "creel update -m 1g --restart unless-stopped web"),
    ("version", "creel version"),
    ("volume create", "creel volume create --label of=shop data"),
    ("volume inspect", "creel volume inspect -f '{{.Mountpoint}}' data"),
    ("volume ls", "creel volume ls --filter dangling=true"),
    ("volume prune", "creel volume prune -a -f"),
    ("volume rm", "creel volume rm data"),
    ("wait", "creel wait web"),
];

/// The example for a command, by its words without the program's: of one that is there twice, that of the other place.
pub(crate) fn of(words: &str) -> Option<&'static str> {
    let find = |words: &str| ALL.iter().find(|(command, _)| *command == words).map(|(_, example)| *example);
    let elsewhere = || match words.split_once(' ') {
        Some(("container" | "image" | "system", rest)) => find(rest),
        Some(("builder", "build")) => find("build"),
        Some(("builder", rest)) => find(&format!("build {rest}")),
        _ => None,
    };
    find(words).or_else(elsewhere)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::args::Arguments;

    fn check(command: &clap::Command, words: &str) {
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            let words = format!("{words} {}", below.get_name());
            let words = words.trim();
            if below.get_subcommands().next().is_none() {
                assert!(of(words).is_some(), "creel {words} has no example");
            }
            check(below, words);
        }
    }

    #[test]
    fn every_command_has_an_example_that_can_be_read() {
        check(&Arguments::command(), "");
        for (words, example) in ALL {
            assert!(example.contains(&format!("creel {words}")), "{words}: {example}");
            // What stands in quotes is one word, as for a shell.
            let mut line: Vec<String> = Vec::new();
            for (at, part) in example.trim_start_matches("source <(").trim_end_matches(')').split('\'').enumerate() {
                if at % 2 == 1 { line.push(part.to_owned()) } else { line.extend(part.split_whitespace().map(str::to_owned)) }
            }
            let line: Vec<String> = line.into_iter().take_while(|word| word != "<").collect();
            Arguments::try_parse_from(&line).unwrap_or_else(|e| panic!("{example}: {e}"));
        }
    }
}
