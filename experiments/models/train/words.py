"""Word lists for the prompt grammar: written for this project."""

def _w(text):
    return [x.strip() for x in text.replace("\n", " ").split(",") if x.strip()]


NAMES = _w("""Anna, Ben, Clara, David, Ella, Finn, Grace, Hugo, Ivy, Jack, Kate, Leo, Mia, Noah, Olive, Pablo,
Rosa, Sam, Tara, Umar, Vera, Will, Xenia, Yusuf, Zoe, Amir, Bella, Carlos, Daisy, Emil, Fatima, George, Hana,
Isaac, Jane, Kofi, Lily, Marco, Nora, Omar, Penny, Quinn, Rita, Simon, Tess, Uma, Victor, Wendy, Yara, Zack,
Alice, Boris, Cora, Dina, Edgar, Flora, Gus, Holly, Igor, Julia, Kamal, Lucy, Max, Nina, Otto, Paula, Ravi,
Sofia, Tom, Ursula, Vikram, Wanda, Yuki, Ada, Bruno, Cleo, Dario, Eva, Felix, Gina, Henry, Ines, Jonas, Kira,
Luis, Maya, Nico, Oscar, Pia, Rosie, Stella, Theo, Ruth, Walter, Arthur, Beth, Chen, Dora, Elias, Freya""")

ROLES = _w("""boy, girl, baker, farmer, fisherman, gardener, teacher, doctor, sailor, painter, shepherd, tailor,
carpenter, librarian, clockmaker, musician, postman, princess, prince, king, queen, knight, inventor, shopkeeper,
cook, grandmother, grandfather, nurse, pilot, astronaut, dancer, singer, poet, builder, firefighter, driver,
student, beekeeper, potter, weaver, miner, ferryman, lighthouse keeper, zookeeper, train driver, wizard, explorer""")

ANIMALS = _w("""fox, rabbit, bear, mouse, owl, cat, dog, duck, frog, turtle, hedgehog, squirrel, horse, cow, sheep,
goat, pig, hen, goose, crow, sparrow, robin, swan, penguin, whale, dolphin, seal, crab, octopus, snail, bee, ant,
butterfly, spider, lion, tiger, elephant, monkey, giraffe, zebra, camel, donkey, deer, wolf, badger, beaver, otter,
mole, bat, lizard, dragon, kitten, puppy, lamb, pony, parrot, peacock, kangaroo, koala, panda, fish, robot""")

ADJECTIVES = _w("""small, brave, shy, clever, lazy, kind, lonely, curious, cheerful, grumpy, quiet, noisy, old, young,
proud, gentle, hungry, sleepy, careful, careless, honest, greedy, patient, restless, funny, serious, tired, happy,
sad, worried, stubborn, friendly, poor, rich, strong, weak, fast, slow, tall, tiny, wise, foolish, busy, playful,
forgetful, generous, jealous, polite, rude, nervous, calm, bold, messy, neat, thoughtful, dreamy, hopeful""")

PLACES = _w("""in a small village, near a wide river, at the edge of a forest, on a farm, in a busy city, by the sea,
on a tall mountain, in a deep valley, on a little island, in an old castle, beside a quiet lake, in a snowy town,
in a hot desert, under a bridge, in a big garden, in a house with a red door, near a railway station, in a hollow
tree, at the top of a tower, in a meadow, next to a bakery, above a bookshop, in a lighthouse, on a boat, in a cave,
near a windmill, in a green park, at the end of a long road, in a tiny cottage, behind the school, in the jungle,
in a quiet street, beside a waterfall, near the harbour, in a camp of tents, in a town full of clocks""")

NOUNS = _w("""key, lamp, boat, kite, drum, apple, bread, cake, hat, coat, shoe, ring, coin, box, map, letter, book,
pencil, clock, bell, ladder, rope, basket, bucket, blanket, pillow, candle, mirror, window, door, wheel, cart, bicycle,
train, balloon, ball, doll, puzzle, flute, violin, guitar, feather, shell, stone, leaf, flower, seed, tree, berry,
mushroom, honey, milk, cheese, soup, egg, carrot, pumpkin, potato, sugar, salt, spoon, cup, plate, kettle, broom,
hammer, nail, net, fence, bridge, well, path, hill, cloud, rain, snow, wind, storm, rainbow, moon, star, sun, shadow,
fire, ice, sand, wave, river, pond, garden, nest, egg, treasure, song, secret, promise, dream, wish, story, game,
race, party, gift, picture, statue, tower, tunnel, market, museum, library, ticket, suitcase, umbrella, scarf,
button, thread, needle, telescope, compass, camera, radio, engine, robot, magnet, paint, ribbon, sled, tent""")

VERBS = _w("""run, jump, climb, swim, dig, build, break, fix, carry, lift, push, pull, throw, catch, find, lose, hide,
share, give, take, borrow, return, open, close, cook, bake, eat, drink, sing, dance, paint, draw, write, read, listen,
watch, wait, sleep, wake, dream, laugh, cry, smile, shout, whisper, ask, answer, learn, teach, help, thank, forgive,
travel, sail, ride, fly, fall, float, plant, grow, pick, clean, wash, sew, follow, lead, meet, visit, invite, count,
measure, choose, remember, forget, trust, try, win, save, collect, trade, repair, explore, rescue, practise""")

FEELINGS = _w("""happy, sad, scared, proud, angry, lonely, excited, surprised, tired, jealous, grateful, calm, worried,
hopeful, curious, ashamed, brave, bored""")

LESSONS = _w("""sharing is better than keeping, friends come in many forms, small steps lead far, telling the truth
matters, asking for help is brave, patience brings good things, everyone makes mistakes, practice makes us better,
kindness returns, it is good to listen, home is where people care, being different is fine, work comes before rest,
greed leads to trouble, even the small can be strong, anger passes, a plan saves time, promises should be kept""")

FEATURES = _w("""a conversation between two characters, a surprise near the end, a happy ending, a sad moment, a funny
mistake, a bad storm, a long journey, a difficult choice, an old friend who returns, something that is lost and found,
a misunderstanding, a contest, a new neighbour, a birthday, a broken thing that gets repaired, a secret, a strange
noise at night, a helpful stranger, a wish that goes wrong, a first day at school, a meal shared together""")

TIMES = _w("""One morning, One evening, One cold night, On a rainy day, Early in the spring, Late in the summer,
On a windy afternoon, The day before the festival, Last winter, Every Sunday, Just before dinner, On the first day of
school, When the snow melted, After the storm, At midnight, On the longest day of the year""")

THINGS = _w("""a volcano, the moon, a rainbow, gravity, a magnet, electricity, a battery, a bridge, a library, a bank,
a hospital, a farm, a forest, a desert, the ocean, a river, an island, a glacier, a cloud, rain, snow, wind, thunder,
lightning, the sun, a star, a planet, a comet, a telescope, a microscope, a computer, the internet, a robot, a bicycle,
a car engine, a train, an airplane, a ship, a compass, a map, a clock, a calendar, money, a market, a school, a museum,
a law, a vote, a city, a village, a family, friendship, honesty, courage, patience, music, a guitar, a piano, a drum,
painting, a story, a poem, a newspaper, a letter, bread, cheese, salt, sugar, tea, coffee, chocolate, an apple, rice,
wheat, a potato, a seed, a root, a leaf, a flower, a tree, a bee, an ant, a spider, a butterfly, a frog, a snake,
a bird, an eagle, a penguin, a whale, a shark, a dolphin, a horse, a cow, a dog, a cat, a lion, an elephant, a bear,
a dinosaur, a fossil, a rock, gold, iron, glass, paper, plastic, cotton, wool, soap, fire, ice, steam, sound, light,
colour, heat, a shadow, the heart, the brain, the lungs, bones, muscles, skin, teeth, sleep, a dream, exercise,
a vaccine, a germ, recycling, a garden, compost, a windmill, a solar panel, a dam, a castle, a pyramid, a lighthouse""")

QUESTIONS = _w("""Why is the sky blue?, Why do leaves change colour?, Why do we sleep?, Why does it rain?,
How do birds fly?, How do fish breathe?, How do plants drink water?, Why does ice float?, Why do we have seasons?,
How does a boat float?, Why is the sea salty?, How do bees make honey?, Why do cats purr?, How do magnets work?,
Why do we yawn?, How is bread made?, How is paper made?, How is glass made?, Why do we need friends?,
Why do people tell stories?, How do we hear sounds?, Why do we get hungry?, How does a seed become a tree?,
Why do stars twinkle?, What makes thunder?, How does a clock keep time?, Why should we wash our hands?,
Why do we need to drink water?, How does a bicycle stay up?, Why do some animals sleep all winter?,
How do spiders make webs?, What is inside the Earth?, Why does the moon change shape?, How do airplanes fly?,
Why do we cry?, What makes a good friend?, How can I be brave?, What should I do when I am angry?,
How can I learn faster?, How do I save money?, What is the best way to make friends?, Why is exercise good for us?,
How do I stop being afraid of the dark?, What should I eat for breakfast?, How do people build bridges?,
Why do we have laws?, How does a library work?, What does a doctor do?, Why do we read books?,
How do computers remember things?, What is a good hobby for a rainy day?, How do I say sorry?""")

TASKS = _w("""bake a loaf of bread, make a cup of tea, plant a tree, grow tomatoes, wash a dog, clean a kitchen,
paint a fence, build a birdhouse, fix a bicycle tyre, sew on a button, write a letter, draw a cat, learn a song,
plan a party, pack a suitcase, read a map, set up a tent, make a sandwich, cook rice, make vegetable soup, boil an egg,
make pancakes, bake cookies, wash clothes, iron a shirt, tie a knot, fold a paper boat, fly a kite, swim safely,
ride a bicycle, catch a train, save water, sort the recycling, start a garden, keep bees, look after a kitten,
feed the birds, take a good photograph, give a speech, study for a test, make a new friend, welcome a guest,
choose a gift, keep a diary, play chess, throw a ball, juggle, sleep well, wake up early, stay warm in winter,
make a snowman, build a sandcastle, light a campfire safely, cross a busy road, clean a window, make lemonade""")

LETTERS = _w("""thank a friend for a gift, invite a cousin to a party, say sorry for breaking a window,
tell a grandmother about a holiday, ask a neighbour for help in the garden, thank a teacher,
tell a friend about a new house, ask a shop about a lost parcel, describe a new job to a sister,
congratulate a friend on a new baby, ask the mayor to plant more trees, tell a brother about the weather,
thank a doctor, invite a class to a museum, tell a friend about a new pet, say goodbye before a long trip,
ask a librarian to find a book, share good news about a prize, cheer up a sick friend, describe a festival""")

TOPICS = _w("""the weather, a lost dog, dinner, a school test, a broken bicycle, a trip to the sea, a new film,
moving to a new house, a birthday present, the garden, a football match, learning to cook, a noisy neighbour,
a train that is late, buying fruit, choosing a book, planning a picnic, a bad dream, a piano lesson, an old photograph,
a visit to the doctor, saving money, a job interview, the night sky, a surprise party, cleaning the house,
a camping trip, a borrowed umbrella, a new pair of shoes, an argument, learning to swim, the best season""")

SCENES = _w("""a busy market, an empty beach in winter, a kitchen on a Sunday, a train station at night, an old library,
a garden after rain, a mountain path, a fishing boat at dawn, a school playground, a quiet church, a city street,
a bakery early in the morning, a farm at harvest, a snowy forest, a small bedroom, a workshop full of tools,
a river in spring, a castle in ruins, a night sky, a summer meadow, a harbour, an attic, a flower shop, a hospital
corridor, a bus full of people, a campfire, a windy hill, a desert at noon, a music room, a field of wheat""")
