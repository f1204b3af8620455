//! Questions about a registry as a whole and about names: tags, search, whether credentials are good.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, header};
use serde::Deserialize;

use crate::{Failure, Url, endpoint::Endpoint, exchange::Ask, failure::clean, source::Session};

/// Of one page of a list.
const PAGE_LIMIT: u64 = 8 << 20;
/// Names on a page.
const PAGE: &str = "1000";
/// Pages of a list; more is a registry that leads us in circles.
const MOST_PAGES: usize = 200;
/// Names in a list.
const MOST_NAMES: usize = 200_000;

/// A repository that a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Its name, without the registry.
    pub name: String,
    /// What its owner says of it; may be empty.
    pub description: String,
    /// How many people like it.
    pub stars: u64,
    /// The registry's operator vouches for it.
    pub official: bool,
}

#[derive(Deserialize)]
struct Tags {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Catalog {
    #[serde(default)]
    repositories: Vec<String>,
}

#[derive(Deserialize)]
struct Results {
    #[serde(default)]
    results: Vec<RawHit>,
}

#[derive(Deserialize)]
struct RawHit {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    star_count: u64,
    #[serde(default)]
    is_official: bool,
}

/// All tags of the session's repository, as the registry orders them.
pub(crate) async fn tags(session: &Arc<Session>, number: usize) -> Result<Vec<String>, Failure> {
    let endpoint = session.endpoint(number);
    let url = endpoint.url(&session.repository, "tags/list").with_query("n", PAGE);
    let legal = |tag: &String| tag.parse::<model::Tag>().is_ok();
    let names = pages(session, endpoint, url, |body| Some(serde_json::from_slice::<Tags>(body).ok()?.tags.unwrap_or_default()));
    Ok(names.await?.into_iter().filter(legal).collect())
}

/// Repositories whose names or descriptions have a term in them, at most `most`. Docker Hub has a search; other
/// registries may have its old form (`/v1/search`) or a catalog, in which names are looked through.
pub(crate) async fn search(session: &Arc<Session>, number: usize, term: &str, most: usize) -> Result<Vec<Hit>, Failure> {
    let endpoint = session.endpoint(number);
    let root = endpoint.root("");
    let target = format!("/v1/search?q={}&n={most}", crate::url::percent(term));
    let url = Url { origin: search_origin(&root), target };
    let missing = match session.ask(endpoint, url, &Ask::default()).await {
        Ok(response) => {
            let body = session.read_all(session.only_ok(response).await?, PAGE_LIMIT).await?;
            match serde_json::from_slice::<Results>(&body) {
                Ok(found) => return Ok(found.results.into_iter().take(most).map(hit).collect()),
                Err(_) => Failure::NoList("not the JSON of a search"),
            }
        }
        Err(failure @ Failure::Status { status: 400 | 401 | 403..=405, .. }) => failure,
        Err(failure) => return Err(failure),
    };
    let url = endpoint.root("_catalog").with_query("n", PAGE);
    let names = pages(session, endpoint, url, |body| Some(serde_json::from_slice::<Catalog>(body).ok()?.repositories)).await;
    let names = match names {
        Err(Failure::Status { status: 401 | 403..=405, .. }) => return Err(missing),
        other => other?,
    };
    let found = names.into_iter().filter(|name| name.contains(term)).take(most);
    Ok(found.map(|name| Hit { name: clean(&name, 255), description: String::new(), stars: 0, official: false }).collect())
}

/// Docker Hub searches at another host than it serves images from.
fn search_origin(root: &Url) -> crate::Origin {
    let mut origin = root.origin.clone();
    if origin.host == "registry-1.docker.io" {
        "index.docker.io".clone_into(&mut origin.host);
    }
    origin
}

fn hit(raw: RawHit) -> Hit {
    let description = clean(&raw.description.unwrap_or_default(), 1000);
    Hit { name: clean(&raw.name, 255), description, stars: raw.star_count, official: raw.is_official }
}

/// Whether the registry lets us in: its base answers 200 to these credentials.
pub(crate) async fn check(session: &Arc<Session>, number: usize) -> Result<(), Failure> {
    let endpoint = session.endpoint(number);
    session.ask(endpoint, endpoint.root(""), &Ask::default()).await.map(drop)
}

/// A list over all its pages (`Link: <URL>; rel="next"`, RFC 5988), which must stay at the registry.
async fn pages(
    session: &Session,
    endpoint: &Endpoint,
    first: Url,
    read: impl Fn(&Bytes) -> Option<Vec<String>>,
) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    let mut next = Some(first);
    for _ in 0..MOST_PAGES {
        let Some(url) = next.take() else { return Ok(all) };
        let response = session.ask(endpoint, url.clone(), &Ask::default()).await?;
        let response = session.only_ok(response).await?;
        next = next_page(&url, response.headers())?;
        let body = session.read_all(response, PAGE_LIMIT).await?;
        all.extend(read(&body).ok_or(Failure::NoList("not the JSON of a list of names"))?);
        if all.len() > MOST_NAMES {
            return Err(Failure::NoList("more than 200000 names"));
        }
    }
    if next.is_none() { Ok(all) } else { Err(Failure::NoList("more than 200 pages")) }
}

fn next_page(url: &Url, headers: &HeaderMap) -> Result<Option<Url>, Failure> {
    let link = headers.get(header::LINK).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let next = link.split(',').find(|part| part.contains("rel=\"next\"") || part.contains("rel=next"));
    let Some(text) = next.and_then(|part| part.trim().strip_prefix('<')?.split_once('>')).map(|(text, _)| text) else {
        return Ok(None);
    };
    let next = url.join(text).map_err(|_| Failure::NoList("the link to the next page is no URL"))?;
    if next.origin == url.origin { Ok(Some(next)) } else { Err(Failure::NoList("the next page is at another host")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_pages_stay_at_the_registry() {
        let url = Url::parse("https://reg.example/v2/_catalog?n=2").unwrap();
        let next = |link: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LINK, link.parse().unwrap());
            next_page(&url, &headers).map(|url| url.map(|url| url.target))
        };
        assert_eq!(next("</v2/_catalog?n=2&last=b>; rel=\"next\"").unwrap().as_deref(), Some("/v2/_catalog?n=2&last=b"));
        assert_eq!(next("<x>; rel=\"prev\", <?last=c>; rel=next").unwrap().as_deref(), Some("/v2/_catalog?last=c"));
        assert_eq!(next("nothing").unwrap(), None);
        assert!(next("<https://other.example/>; rel=\"next\"").is_err());
        assert!(next("<ftp://x/>; rel=\"next\"").is_err());
    }
}
