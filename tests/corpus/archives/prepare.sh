mkdir -p dir; echo f > dir/file
echo one > one; chmod 640 one; ln -s one two; mkdir sub; echo in > sub/in; ln one sub/hard
tar --owner=5 --group=6 --numeric-owner --mtime=@1000000000 -cf plain.tar one two sub
gzip -nc plain.tar > packed.tar.gz
echo text | gzip -nc > text.gz
rm -r one two sub
