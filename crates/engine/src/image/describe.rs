//! What people ask about an image: its history, its config as it stands, what it shares with others.

use std::collections::HashMap;

use model::{DiffId, ErrorKind};
use oci_spec::image::ImageConfiguration;

use super::{ImageInfo, Images};
use crate::{
    blocking::blocking,
    error::{About, Error, Step},
};

/// A line of an image's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// When (RFC 3339); may be empty.
    pub created: String,
    /// The instruction.
    pub created_by: String,
    /// Whoever made it says.
    pub comment: String,
    /// Bytes of its layer, unpacked; 0 if it made none.
    pub size: u64,
}

/// An image with all that is known of it.
#[derive(Clone, Debug)]
pub struct ImageDetails {
    /// What lists show.
    pub info: ImageInfo,
    /// Its config, byte for byte.
    pub config: Vec<u8>,
    /// Newest first.
    pub history: Vec<HistoryEntry>,
}

/// What an image takes on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of layers that other images use too.
    pub shared: u64,
    /// Bytes that would be freed with it.
    pub unique: u64,
    /// Bytes of its layers, unpacked.
    pub unpacked: u64,
    /// Bytes of each of its layers on the disk, lowest first.
    pub layers: Vec<u64>,
}

impl Images {
    /// Everything about an image.
    ///
    /// # Errors
    /// `NotFound`; if its config is damaged.
    pub async fn details(&self, name: &str) -> Result<ImageDetails, Error> {
        let (image, _) = self.find_named(name)?;
        let (shared, about) = (self.shared.clone(), About::Image(name.to_owned()));
        let info = ImageInfo::of(image);
        let id = info.id;
        let config = blocking(move || shared.store.blob(id.digest())).await.step(about.clone(), "read config")?;
        let parsed: ImageConfiguration =
            serde_json::from_slice(&config).map_err(|e| Error::new(ErrorKind::Corrupted, about, format!("config: {e}")))?;
        let sizes = info.layers.iter().map(|id| self.shared.store.layer(id).map_or(0, |layer| layer.tar_size)).collect();
        Ok(ImageDetails { history: history(&parsed, sizes), info, config })
    }

    /// Bytes on the disk of all layers of images, and of those that only images without one of `used` have.
    pub fn layer_bytes(&self, used: impl Fn(&ImageInfo) -> bool) -> (u64, u64) {
        let images: Vec<ImageInfo> = self.shared.store.images().into_iter().map(ImageInfo::of).collect();
        let of = |wanted: &dyn Fn(&ImageInfo) -> bool| {
            let mut layers: Vec<DiffId> =
                images.iter().filter(|image| wanted(image)).flat_map(|i| i.layers.iter().copied()).collect();
            layers.sort_unstable();
            layers.dedup();
            layers.iter().filter_map(|id| self.shared.store.layer(id)).map(|layer| layer.bytes).sum::<u64>()
        };
        let all = of(&|_| true);
        (all, all.saturating_sub(of(&used)))
    }

    /// All images, and what each takes on the disk.
    pub fn footprints(&self) -> Vec<(ImageInfo, Footprint)> {
        let images = self.shared.store.images();
        let mut users: HashMap<DiffId, usize> = HashMap::new();
        for image in &images {
            distinct(&image.record.layers).for_each(|layer| *users.entry(layer).or_default() += 1);
        }
        let of = |layers: &[DiffId]| {
            let mut footprint = Footprint::default();
            for layer in distinct(layers) {
                let Some(info) = self.shared.store.layer(&layer) else { continue };
                let to = if users.get(&layer).is_some_and(|n| *n > 1) { &mut footprint.shared } else { &mut footprint.unique };
                *to += info.bytes;
            }
            let tar_size = |id| self.shared.store.layer(id).map_or(0, |info| info.tar_size);
            footprint.layers = layers.iter().map(|id| self.shared.store.layer(id).map_or(0, |info| info.bytes)).collect();
            footprint.unpacked = layers.iter().map(tar_size).sum();
            footprint
        };
        let with = |image: store::NamedImage| {
            let footprint = of(&image.record.layers);
            (ImageInfo::of(image), footprint)
        };
        images.into_iter().map(with).collect()
    }
}

fn distinct(layers: &[DiffId]) -> impl Iterator<Item = DiffId> {
    let mut seen: Vec<DiffId> = layers.to_vec();
    seen.sort_unstable();
    seen.dedup();
    seen.into_iter()
}

/// Entries and layers go together in order; an entry that made no layer says so. There may be more of either: a config is only
/// as good as who wrote it. Layers that nobody speaks of are the lowest ones, because who adds a layer adds an entry.
fn history(config: &ImageConfiguration, mut sizes: Vec<u64>) -> Vec<HistoryEntry> {
    let entries = || config.history().iter().flatten();
    let is_empty = |entry: &oci_spec::image::History| entry.empty_layer().unwrap_or(false);
    let silent = sizes.len().saturating_sub(entries().filter(|entry| !is_empty(entry)).count());
    let unsaid = |size| HistoryEntry { created: String::new(), created_by: String::new(), comment: String::new(), size };
    let mut lines: Vec<HistoryEntry> = sizes.drain(..silent).map(unsaid).collect();
    let mut sizes = sizes.into_iter();
    lines.extend(entries().map(|entry| HistoryEntry {
        created: entry.created().clone().unwrap_or_default(),
        created_by: entry.created_by().clone().unwrap_or_default(),
        comment: entry.comment().clone().unwrap_or_default(),
        size: if is_empty(entry) { 0 } else { sizes.next().unwrap_or(0) },
    }));
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_go_to_the_entries_that_made_them() {
        let config = |history: &str| {
            let text = format!(
                r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"history":{history}}}"#
            );
            serde_json::from_str::<ImageConfiguration>(&text).unwrap()
        };
        let shown = |history_text: &str, sizes: &[u64]| {
            let lines = history(&config(history_text), sizes.to_vec());
            lines.into_iter().map(|line| (line.created_by, line.size)).collect::<Vec<_>>()
        };
        let three = r#"[{"created_by":"a"},{"created_by":"b","empty_layer":true},{"created_by":"c"}]"#;
        let owned = |lines: &[(&str, u64)]| lines.iter().map(|(by, size)| ((*by).to_owned(), *size)).collect::<Vec<_>>();
        assert_eq!(shown(three, &[1, 2]), owned(&[("c", 2), ("b", 0), ("a", 1)]));
        assert_eq!(shown(three, &[1]), owned(&[("c", 0), ("b", 0), ("a", 1)]));
        assert_eq!(shown("[]", &[1, 2]), owned(&[("", 2), ("", 1)]));
        assert_eq!(shown(three, &[1, 2, 3]), owned(&[("c", 3), ("b", 0), ("a", 2), ("", 1)]));
    }
}
