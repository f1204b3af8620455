//! Limits, both ways. CRI has no absent numbers: zero and empty mean that nothing was said.

use api::runtime as cri;
use model::Resources;

use super::{Result, invalid, shown};

/// Limits as asked for.
pub(crate) fn from_proto(field: &str, asked: Option<cri::LinuxContainerResources>) -> Result<Resources> {
    let Some(asked) = asked else { return Ok(Resources::default()) };
    let said = |number: i64| (number != 0).then_some(number);
    let positive = |name: &str, number: i64| match u64::try_from(number) {
        Ok(0) => Ok(None),
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(invalid(format_args!("{field}.{name}"), format_args!("{number}: negative"))),
    };
    let cpus = |name: &str, list: String| match list {
        list if list.is_empty() => Ok(None),
        list if list.bytes().all(|c| c.is_ascii_digit() || matches!(c, b',' | b'-')) => Ok(Some(list)),
        list => Err(invalid(format_args!("{field}.{name}"), format_args!("{}: not a list like 0-3,7", shown(&list)))),
    };
    let oom_score_adj = match i32::try_from(asked.oom_score_adj) {
        Ok(0) => None,
        Ok(adj @ -1000..=1000) => Some(adj),
        _ => {
            return Err(invalid(
                format_args!("{field}.oom_score_adj"),
                format_args!("{}: not from -1000 to 1000", asked.oom_score_adj),
            ));
        }
    };
    let mut resources = Resources {
        cpu_period: positive("cpu_period", asked.cpu_period)?,
        cpu_quota: said(asked.cpu_quota),
        cpu_shares: positive("cpu_shares", asked.cpu_shares)?,
        memory_limit: said(asked.memory_limit_in_bytes),
        memory_swap_limit: said(asked.memory_swap_limit_in_bytes),
        cpuset_cpus: cpus("cpuset_cpus", asked.cpuset_cpus)?,
        cpuset_mems: cpus("cpuset_mems", asked.cpuset_mems)?,
        oom_score_adj,
        ..Resources::default()
    };
    for limit in asked.hugepage_limits {
        if !is_page_size(&limit.page_size) {
            let field = format_args!("{field}.hugepage_limits");
            return Err(invalid(field, format_args!("{}: not a page size like 2MB", shown(&limit.page_size))));
        }
        resources.hugepage_limits.insert(limit.page_size, limit.limit);
    }
    for (file, value) in asked.unified {
        if !is_cgroup_file(&file) {
            return Err(invalid(format_args!("{field}.unified"), format_args!("{}: not a file like memory.high", shown(&file))));
        }
        resources.unified.insert(file, value);
    }
    Ok(resources)
}

/// Limits as they are.
pub(crate) fn to_proto(resources: &Resources) -> cri::LinuxContainerResources {
    let signed = |number: Option<u64>| number.and_then(|n| i64::try_from(n).ok()).unwrap_or_default();
    cri::LinuxContainerResources {
        cpu_period: signed(resources.cpu_period),
        cpu_quota: resources.cpu_quota.unwrap_or_default(),
        cpu_shares: signed(resources.cpu_shares),
        memory_limit_in_bytes: resources.memory_limit.unwrap_or_default(),
        oom_score_adj: resources.oom_score_adj.unwrap_or_default().into(),
        cpuset_cpus: resources.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: resources.cpuset_mems.clone().unwrap_or_default(),
        hugepage_limits: resources
            .hugepage_limits
            .iter()
            .map(|(page_size, limit)| cri::HugepageLimit { page_size: page_size.clone(), limit: *limit })
            .collect(),
        unified: resources.unified.clone(),
        memory_swap_limit_in_bytes: resources.memory_swap_limit.unwrap_or_default(),
    }
}

/// What the kernel calls a huge page's size in file names: a number and a unit. It becomes part of a path.
fn is_page_size(text: &str) -> bool {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    matches!(unit, "KB" | "MB" | "GB") && !digits.is_empty() && digits.len() < 8 && digits.bytes().all(|c| c.is_ascii_digit())
}

/// A file of one cgroup, `CONTROLLER.NAME`. It becomes part of a path.
fn is_cgroup_file(text: &str) -> bool {
    let word = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'_' | b'.' | b'-');
    text.len() < 128 && text.contains('.') && !text.starts_with('.') && !text.contains("..") && text.bytes().all(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubelets() -> cri::LinuxContainerResources {
        cri::LinuxContainerResources {
            cpu_period: 100_000,
            cpu_shares: 102,
            memory_limit_in_bytes: 64 << 20,
            memory_swap_limit_in_bytes: 64 << 20,
            oom_score_adj: 999,
            cpuset_cpus: "0-1,3".into(),
            hugepage_limits: vec![
                cri::HugepageLimit { page_size: "1GB".into(), limit: 0 },
                cri::HugepageLimit { page_size: "2MB".into(), limit: 0 },
            ],
            unified: [("memory.oom.group".to_owned(), "1".to_owned())].into(),
            ..Default::default()
        }
    }

    #[test]
    fn zero_is_not_said_and_the_rest_comes_back() {
        let resources = from_proto("r", Some(kubelets())).unwrap();
        assert_eq!((resources.cpu_quota, resources.cpu_period, resources.oom_score_adj), (None, Some(100_000), Some(999)));
        assert_eq!(resources.hugepage_limits.len(), 2);
        assert_eq!(to_proto(&resources), kubelets());
        assert_eq!(from_proto("r", None).unwrap(), Resources::default());
        assert_eq!(from_proto("r", Some(Default::default())).unwrap(), Resources::default());
        let unlimited = cri::LinuxContainerResources { cpu_quota: -1, memory_limit_in_bytes: -1, ..Default::default() };
        let resources = from_proto("r", Some(unlimited)).unwrap();
        assert_eq!((resources.cpu_quota, resources.memory_limit), (Some(-1), Some(-1)));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        type Spoil = fn(&mut cri::LinuxContainerResources);
        let cases: [(&str, Spoil); 8] = [
            ("r.cpu_period", |r| r.cpu_period = -1),
            ("r.cpu_shares", |r| r.cpu_shares = -2),
            ("r.oom_score_adj", |r| r.oom_score_adj = 1001),
            ("r.cpuset_cpus", |r| r.cpuset_cpus = "0;1".into()),
            ("r.cpuset_mems", |r| r.cpuset_mems = "../x".into()),
            ("r.hugepage_limits", |r| r.hugepage_limits[0].page_size = "../2MB".into()),
            ("r.unified", |r| r.unified = [("../cgroup.procs".to_owned(), String::new())].into()),
            ("r.unified", |r| r.unified = [("a/b.c".to_owned(), String::new())].into()),
        ];
        for (field, spoil) in cases {
            let mut asked = kubelets();
            spoil(&mut asked);
            let refused = from_proto("r", Some(asked)).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("{field}: ")), "{refused}");
        }
    }
}
