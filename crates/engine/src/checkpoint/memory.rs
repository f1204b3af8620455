//! Whether the pages that images speak of are there: criu waits for ever for those that are missing.

use std::collections::BTreeMap;

use super::{
    images::{Refused, damaged, messages, refuse},
    wire,
};

/// Of a `pagemap_entry`'s flags (criu, `include/pagemap.h`): the pages are with an earlier capture. Ours have none.
const PARENT: u64 = 1;
/// No page is shorter.
const PAGE: u64 = 4096;

/// Compares tables of pages with the files that hold them. `names`: all images. `read`: the content of one. `size`: bytes of
/// one.
///
/// # Errors
/// Pages that are missing.
pub(super) fn check(
    names: &[String],
    read: impl Fn(&str) -> Result<Vec<u8>, Refused>,
    size: impl Fn(&str) -> Result<u64, Refused>,
) -> Result<(), Refused> {
    let mut wanted: BTreeMap<u64, u64> = BTreeMap::new();
    for name in names.iter().filter(|name| name.starts_with("pagemap-")) {
        let (file, pages) = count(name, &read(name)?)?;
        let sum = wanted.entry(file).or_default();
        *sum = sum.saturating_add(pages);
    }
    for (file, pages) in wanted {
        let name = format!("pages-{file}.img");
        if !names.contains(&name) && pages > 0 {
            return refuse(&name, "is missing");
        }
        if pages > 0 && size(&name)? < pages.saturating_mul(PAGE) {
            return refuse(&name, format!("is cut off: it is to have {pages} pages"));
        }
    }
    Ok(())
}

/// The number of the file that a table is about, and how many pages it takes from there.
fn count(image: &str, bytes: &[u8]) -> Result<(u64, u64), Refused> {
    let messages = messages(image, bytes)?;
    let Some((head, entries)) = messages.split_first() else { return refuse(image, "is empty") };
    let Some(file) = wire::number(head, 1).or_else(damaged(image))? else { return refuse(image, "is damaged") };
    let mut pages = 0_u64;
    for entry in entries {
        let field = |number| wire::number(entry, number).or_else(damaged(image));
        if field(3)?.unwrap_or(0) != 0 || field(4)?.unwrap_or(0) & PARENT != 0 {
            return refuse(image, "some of the memory was captured earlier, and is not here");
        }
        // The second field had 32 bits and became too small.
        let Some(some) = field(5)?.or(field(2)?) else { return refuse(image, "is damaged") };
        pages = pages.saturating_add(some);
    }
    Ok((file, pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of a table, after its length: all numbers are small.
    fn message(fields: &[(u8, u8)]) -> Vec<u8> {
        let body: Vec<u8> = fields.iter().flat_map(|(field, value)| [field << 3, *value]).collect();
        [(body.len() as u32).to_le_bytes().to_vec(), body].concat()
    }

    fn verdict(entries: &[&[(u8, u8)]], sizes: &[(&str, u64)]) -> Result<(), String> {
        let mut table = vec![0x19, 0x43, 0x56, 0x54, 1, 2, 3, 4];
        table.extend(message(&[(1, 7)]));
        table.extend(entries.iter().flat_map(|entry| message(entry)));
        let names: Vec<String> = std::iter::once("pagemap-3.img").chain(sizes.iter().map(|s| s.0)).map(str::to_owned).collect();
        let size = |name: &str| Ok(sizes.iter().find(|(known, _)| *known == name).unwrap().1);
        check(&names, |_| Ok(table.clone()), size).map_err(|refused| refused.to_string())
    }

    #[test]
    fn cr_05_pages_that_are_missing_are_noticed() {
        let two: &[(u8, u8)] = &[(1, 9), (2, 2), (4, 4)];
        let one: &[(u8, u8)] = &[(1, 9), (2, 0), (4, 4), (5, 1)];
        assert_eq!(verdict(&[two, one], &[("pages-7.img", 3 * PAGE)]), Ok(()));
        assert_eq!(verdict(&[], &[]), Ok(()));
        for (entries, sizes, words) in [
            (&[two, one], &[("pages-7.img", 3 * PAGE - 1)][..], "is cut off"),
            (&[two, one], &[("pages-8.img", 3 * PAGE)], "is missing"),
            (&[two, &[(1, 9), (2, 2), (4, 1)]], &[("pages-7.img", 9 * PAGE)], "captured earlier"),
            (&[two, &[(1, 9), (2, 2), (3, 1)]], &[("pages-7.img", 9 * PAGE)], "captured earlier"),
            (&[two, &[(1, 9)]], &[("pages-7.img", 9 * PAGE)], "damaged"),
        ] {
            let error = verdict(entries, sizes).expect_err(words);
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
