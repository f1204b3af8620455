//! Names of images as people use them: finding by name or the beginning of an id, giving another name.

use std::sync::Arc;

use model::{At, ErrorKind, ImageId, ImageRef};
use store::{Name, NamedImage, Store};

use super::{ImageInfo, Images, removal::Asked};
use crate::{
    blocking::blocking,
    error::{About, Error, Step},
};

/// Fewer digits of an id are a name.
const SHORTEST_PREFIX: usize = 4;

impl Images {
    /// An image as people name it: by its whole id, by a name, by the beginning of its id (at least four digits). A name wins
    /// over an id that begins like it.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` if several ids begin so.
    pub fn find(&self, text: &str) -> Result<Arc<ImageInfo>, Error> {
        self.find_named(text).map(|(image, _)| Arc::new(ImageInfo::of(image)))
    }

    /// The image, and whether the text was a name of it.
    pub(crate) fn find_named(&self, text: &str) -> Result<(NamedImage, Asked), Error> {
        let store = &self.shared.store;
        let about = || About::Image(text.to_owned());
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if let Some(image) = format!("sha256:{hex}").parse().ok().and_then(|digest| store.image(&ImageId::new(digest))) {
            return Ok((image, Asked::Id));
        }
        let name = text.parse::<ImageRef>().ok();
        if let Some((image, name)) = name.and_then(|name| Some((store.image(&store.image_id(&name)?)?, name))) {
            return Ok((image, Asked::Name(name)));
        }
        match by_prefix(store, text).step(about(), "find image")? {
            Some(image) => Ok((image, Asked::Id)),
            None => Err(Error::new(ErrorKind::NotFound, about(), format!("No such image: {}", shown(text)))),
        }
    }

    /// Gives an image another name; a name that another image has is taken from it.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` if the new name has a digest.
    pub async fn tag(&self, source: &str, name: ImageRef) -> Result<(), Error> {
        let (image, _) = self.find_named(source)?;
        let about = About::Image(source.to_owned());
        if !matches!(name.at, At::Tag(_)) {
            let why = format!("refusing to create a tag with a digest reference: {name}");
            return Err(Error::new(ErrorKind::InvalidArgument, about, why));
        }
        let shared = self.shared.clone();
        let name = Name { name, target: None };
        blocking(move || shared.store.put_image(&image.record, &[name], &[])).await.step(about, "tag")
    }
}

/// The image whose id begins so, if that is enough of an id.
pub(super) fn by_prefix(store: &Store, text: &str) -> Result<Option<NamedImage>, store::Error> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let is_prefix = hex.len() >= SHORTEST_PREFIX && hex.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    let found = if is_prefix { store.image_by_prefix(hex)? } else { None };
    Ok(found.and_then(|id| store.image(&id)))
}

/// A name as docker repeats it: with the tag that was meant.
fn shown(text: &str) -> String {
    match text.parse::<ImageRef>() {
        Ok(name) => name.familiar(),
        Err(_) => text.chars().take(300).collect(),
    }
}
