//! Measures unpacking: `unpack generate TAR`, then `unpack erofs|directory TAR[.gz|.zst] TARGET`.
//!
//! Use a file system with a journal (see ARCHITECTURE.md on measuring): ext4 without one makes creating files slow for
//! minutes after others were deleted.
#![allow(clippy::print_stdout, reason = "a program for people to run")]

use std::{
    error::Error,
    fs::{File, OpenOptions},
    io::{BufWriter, Read, Write},
    os::fd::AsFd,
    path::Path,
    time::Instant,
};

use layer::{Compression, Limits, Target, apply};
use rustix::time::{ClockId, clock_gettime};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["generate", tar] => generate(Path::new(tar)),
        [mode, tar, target] => measure(mode, Path::new(tar), Path::new(target)),
        _ => Err("unpack generate TAR | unpack erofs|directory TAR[.gz|.zst] TARGET".into()),
    }
}

fn cpu() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

fn measure(mode: &str, tar: &Path, target: &Path) -> Result<(), Box<dyn Error>> {
    let mut input = File::open(tar)?;
    let mut start = [0; 4];
    let n = input.read(&mut start)?;
    let compression = Compression::detect(&start[..n]);
    let reader = std::io::Cursor::new(start[..n].to_vec()).chain(input);
    let limits = Limits::default();
    let (wall, cpu_before) = (Instant::now(), cpu());
    let applied = match mode {
        "erofs" => {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(target)?;
            apply(reader, compression, Target::Erofs(&file), &limits)?
        }
        "directory" => {
            std::fs::create_dir(target)?;
            let dir = File::open(target)?;
            apply(reader, compression, Target::Directory(dir.as_fd()), &limits)?
        }
        _ => return Err("erofs or directory".into()),
    };
    let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu() - cpu_before);
    let mb = applied.tar_size as f64 / 1e6;
    println!(
        "{mode:9} {compression:9} wall {wall:.3} s  cpu {cpu:.3} s  {:.0} MB/s  {} entries  {mb:.0} MB  {}",
        mb / wall,
        applied.entries,
        applied.diff_id
    );
    Ok(())
}

/// About 650 MB in 45,000 small files and a few large ones, compressible like programs and text are.
fn generate(path: &Path) -> Result<(), Box<dyn Error>> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random >> 16
    };
    let words: Vec<Vec<u8>> = (0..4096).map(|_| (0..4 + next() % 9).map(|_| b'a' + (next() % 26) as u8).collect()).collect();
    let mut content = Vec::new();
    for dir in 0..1500u32 {
        header(&mut out, &format!("usr/share/d{dir}/"), b'5', 0)?;
        for file in 0..30u32 {
            let size = if file == 0 && dir % 100 == 0 { 8 << 20 } else { (next() % 24_000) as usize };
            content.clear();
            while content.len() < size {
                let word = &words[(next() % 4096) as usize];
                content.extend_from_slice(word);
                content.extend_from_slice(&(next() as u16).to_le_bytes());
            }
            content.truncate(size);
            header(&mut out, &format!("usr/share/d{dir}/file{file}.dat"), b'0', size)?;
            content.resize(size.next_multiple_of(512), 0);
            out.write_all(&content)?;
        }
    }
    out.write_all(&[0; 1024])?;
    Ok(out.flush()?)
}

fn header(out: &mut impl Write, name: &str, kind: u8, size: usize) -> std::io::Result<()> {
    let mut block = [0u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(if kind == b'5' { b"0000755" } else { b"0000644" });
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"14524770400");
    block[148..156].fill(b' ');
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    out.write_all(&block)
}
